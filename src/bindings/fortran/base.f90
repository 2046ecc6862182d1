!> What all of the Fortran interface has in common: statuses, errors, texts and handles. See
!> lockstep.f90.
module lockstep_base
  use, intrinsic :: iso_c_binding
  use, intrinsic :: iso_fortran_env, only: error_unit, int8, int32, int64, real32, real64
  implicit none
  public

  !> What `stat` is after a call. The numbers never change.
  enum, bind(c)
    enumerator :: LOCKSTEP_OK = 0
    enumerator :: LOCKSTEP_ERROR_OTHER = 1 ! such as a lack of memory
    enumerator :: LOCKSTEP_ERROR_SHAPE = 2 ! extents do not fit each other, or memory is not contiguous
    enumerator :: LOCKSTEP_ERROR_DTYPE = 3 ! another element type than the call takes
    enumerator :: LOCKSTEP_ERROR_NAME = 4 ! a name is unknown, missing or used twice
    enumerator :: LOCKSTEP_ERROR_OPTION = 5 ! an option or argument is outside its range
    enumerator :: LOCKSTEP_ERROR_STATE = 6 ! the call came in a state that does not allow it
    enumerator :: LOCKSTEP_ERROR_DATA = 7 ! a file of data is missing, damaged or something else
    enumerator :: LOCKSTEP_ERROR_CHECKPOINT = 8 ! a checkpoint is missing, damaged or of something else
    enumerator :: LOCKSTEP_ERROR_MPI = 9 ! a call of MPI failed
    enumerator :: LOCKSTEP_ERROR_HANDLE = 10 ! an object is empty, was freed, or is of another kind
    enumerator :: LOCKSTEP_ERROR_CALLBACK = 11 ! a procedure of the caller's said so
    enumerator :: LOCKSTEP_ERROR_DEADLINE = 12 ! other ranks have not come as long as this one waits for them
  end enum

  !> Element types: real(real32), real(real64), integer(int64), and integer(int8) for bytes of 0 to
  !> 255.
  enum, bind(c)
    enumerator :: LOCKSTEP_F32 = 0
    enumerator :: LOCKSTEP_F64 = 1
    enumerator :: LOCKSTEP_I64 = 2
    enumerator :: LOCKSTEP_U8 = 3
  end enum

  enum, bind(c)
    enumerator :: LOCKSTEP_LOG_INFO = 0
    enumerator :: LOCKSTEP_LOG_WARNING = 1
  end enum

  !> What every object of lockstep is. A copy by assignment is another name of the same object.
  type :: lockstep_object
    !> The object's handle in the C interface; null where there is none.
    type(c_ptr) :: handle = c_null_ptr
  contains
    !> Ends the object, unless there is none, and leaves the variable empty. Not collective.
    procedure :: free => free_object
    procedure :: is_empty
  end type

  interface
    function c_last_error() bind(c, name="lockstep_last_error") result(text)
      import
      type(c_ptr) :: text
    end function
    function c_last_error_is_collective() bind(c, name="lockstep_last_error_is_collective") result(is)
      import
      integer(c_int) :: is
    end function
    function c_version() bind(c, name="lockstep_version") result(text)
      import
      type(c_ptr) :: text
    end function
    function c_free(handle) bind(c, name="lockstep_free") result(status)
      import
      type(c_ptr), value :: handle
      integer(c_int) :: status
    end function
    pure function c_strlen(text) bind(c, name="strlen") result(length)
      import
      type(c_ptr), value, intent(in) :: text
      integer(c_size_t) :: length
    end function
  end interface
  private :: c_last_error, c_last_error_is_collective, c_version, c_free, c_strlen, free_object, is_empty

contains

  !> The message of the last call of this thread that failed; "" where none has.
  function lockstep_last_error() result(message)
    character(:), allocatable :: message
    call copy_text(c_last_error(), message)
  end function

  !> Whether all ranks of the communicator were told of that error.
  function lockstep_last_error_is_collective() result(is)
    logical :: is
    is = c_last_error_is_collective() /= 0
  end function

  !> "0.1.0"
  function lockstep_version() result(version)
    character(:), allocatable :: version
    call copy_text(c_version(), version)
  end function

  !> Copies a text of C.
  subroutine copy_text(from, to)
    type(c_ptr), intent(in) :: from
    character(:), allocatable, intent(out) :: to
    character(kind=c_char), pointer :: characters(:)
    integer :: i
    allocate (character(int(c_strlen(from))) :: to)
    call c_f_pointer(from, characters, [len(to)])
    do i = 1, len(to)
      to(i:i) = characters(i)
    end do
  end subroutine

  !> A text for C, without blanks at its end, or null where there is none. `storage` is its memory.
  function c_text(text, storage) result(address)
    character(*), intent(in), optional :: text
    character(kind=c_char), allocatable, target, intent(out) :: storage(:)
    type(c_ptr) :: address
    address = c_null_ptr
    if (.not. present(text)) return
    allocate (storage(len_trim(text) + 1))
    call put_text(text, storage)
    address = c_loc(storage)
  end function

  !> A text for C in an array that is longer than it, without blanks at its end.
  subroutine put_text(text, to)
    character(*), intent(in) :: text
    character(kind=c_char), intent(out) :: to(:)
    integer :: i
    to = c_null_char
    do i = 1, len_trim(text)
      to(i) = text(i:i)
    end do
  end subroutine

  !> Ends each call: tells its status where `stat` is present, or ends the program where it failed.
  subroutine finish(status, stat, errmsg)
    integer(c_int), intent(in) :: status
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    if (status == LOCKSTEP_OK) then
      if (present(stat)) stat = status
    else
      call fail(status, lockstep_last_error(), stat, errmsg)
    end if
  end subroutine

  !> Ends a call that has found an error by itself.
  subroutine fail(status, message, stat, errmsg)
    integer(c_int), intent(in) :: status
    character(*), intent(in) :: message
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    if (present(errmsg)) errmsg = message
    if (present(stat)) then
      stat = status
    else
      write (error_unit, '(2a)') 'lockstep: ', message
      flush (error_unit)
      error stop 1
    end if
  end subroutine

  subroutine free_object(self, stat, errmsg)
    class(lockstep_object), intent(inout) :: self
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    integer(c_int) :: status
    status = c_free(self%handle)
    self%handle = c_null_ptr
    call finish(status, stat, errmsg)
  end subroutine

  pure function is_empty(self) result(is)
    class(lockstep_object), intent(in) :: self
    logical :: is
    is = .not. c_associated(self%handle)
  end function

  !> Ends a call that creates: the variable has the new object, where there is one, and what it had
  !> ends.
  subroutine finish_create(object, handle, status, stat, errmsg)
    class(lockstep_object), intent(inout) :: object
    type(c_ptr), intent(in) :: handle
    integer(c_int), intent(in) :: status
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    integer(c_int) :: freed
    if (status == LOCKSTEP_OK) then
      freed = c_free(object%handle) ! another name of it may have been freed already
      object%handle = handle
    end if
    call finish(status, stat, errmsg)
  end subroutine

end module
