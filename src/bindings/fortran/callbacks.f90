!> Procedures of the caller's, which C calls through procedures here; and where notices go. See
!> lockstep.f90.
module lockstep_callbacks
  use lockstep_base
  implicit none
  private
  public :: callback, keep_callback, lockstep_log_procedure, lockstep_set_log

  !> A procedure and its context, to which C has a pointer.
  type :: callback
    type(c_funptr) :: procedure = c_null_funptr
    class(*), pointer :: context => null()
    type(callback), pointer :: next => null()
  end type

  abstract interface
    !> Is given the notices of lockstep, from any thread.
    subroutine lockstep_log_procedure(level, message, context)
      integer, intent(in) :: level ! LOCKSTEP_LOG_INFO or LOCKSTEP_LOG_WARNING
      character(*), intent(in) :: message
      class(*), intent(inout), optional :: context
    end subroutine
  end interface

  !> Where the notices of this process go: call lockstep_set_log(procedure, context) for a
  !> lockstep_log_procedure; without one nowhere, which is the default: lockstep prints only what
  !> ends the program.
  interface lockstep_set_log
    procedure set_log, set_no_log
  end interface

  interface
    function c_set_log_callback(function, context) bind(c, name="lockstep_set_log_callback") result(status)
      import
      type(c_funptr), value :: function
      type(c_ptr), value :: context
      integer(c_int) :: status
    end function
  end interface

  ! Nobody here knows when C forgets a pointer, as objects live on in others that have them. So
  ! callbacks stay, but one of the same procedure and context is made only once.
  type(callback), pointer, save :: first => null()

contains

  !> A callback that lives until the program ends. For one thread at a time.
  function keep_callback(procedure, context) result(address)
    type(c_funptr), intent(in) :: procedure
    class(*), pointer, intent(in) :: context
    type(c_ptr) :: address
    type(callback), pointer :: one
    one => first
    do while (associated(one))
      if (c_associated(one%procedure, procedure) .and. is_same(one%context, context)) exit
      one => one%next
    end do
    if (.not. associated(one)) then
      allocate (one)
      one%procedure = procedure
      one%context => context
      one%next => first
      first => one
    end if
    address = c_loc(one)
  end function

  function is_same(one, other) result(is)
    class(*), pointer, intent(in) :: one, other
    logical :: is
    is = associated(one) .eqv. associated(other)
    if (is .and. associated(one)) then
      is = associated(one, other)
      if (is) is = same_type_as(one, other)
    end if
  end function

  subroutine set_log(procedure, context, stat, errmsg)
    procedure(lockstep_log_procedure) :: procedure
    class(*), intent(inout), target, optional :: context
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    class(*), pointer :: own_context
    nullify (own_context)
    if (present(context)) own_context => context
    call finish(c_set_log_callback(c_funloc(call_log), keep_callback(c_funloc(procedure), own_context)), &
                stat, errmsg)
  end subroutine

  subroutine set_no_log(stat, errmsg)
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    call finish(c_set_log_callback(c_null_funptr, c_null_ptr), stat, errmsg)
  end subroutine

  subroutine call_log(at, level, message) bind(c, name="")
    type(c_ptr), value :: at
    integer(c_int), value :: level
    type(c_ptr), value :: message
    type(callback), pointer :: one
    procedure(lockstep_log_procedure), pointer :: log
    character(:), allocatable :: text
    call c_f_pointer(at, one)
    call c_f_procpointer(one%procedure, log)
    call copy_text(message, text)
    if (associated(one%context)) then
      call log(int(level), text, one%context)
    else
      call log(int(level), text)
    end if
  end subroutine

end module
