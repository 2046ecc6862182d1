!> Optimizers that are combined, and steps within backward and reduction. See lockstep.f90.
module lockstep_steppings
  use lockstep_base
  use lockstep_options
  use lockstep_c_optimizer
  use lockstep_optimizers, only: lockstep_optimizer
  use lockstep_reducers, only: lockstep_reducer
  implicit none
  private
  public :: lockstep_stepping, lockstep_combine

  !> While it lives, each backward steps every parameter as soon as its gradient is final, and leaves
  !> no gradients; optimizer%step() is not called, nor are hooks.
  type, extends(lockstep_object) :: lockstep_stepping
  contains
    !> call stepping%create(optimizer, reducer, options). With a reducer, and a sharded optimizer of
    !> the same parameters, each rank steps its share in the course of the reduction, which a
    !> reducer without keep_gradients needs: collective. Without a reducer it is not. Options as for
    !> optimizer%step().
    procedure :: create => create_stepping
  end type

contains

  subroutine create_stepping(self, optimizer, reducer, options, stat, errmsg)
    class(lockstep_stepping), intent(inout) :: self
    type(lockstep_optimizer), intent(in) :: optimizer
    type(lockstep_reducer), intent(in), optional :: reducer
    type(lockstep_option), intent(in), optional :: options(:)
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    type(c_options) :: list
    type(c_ptr) :: reducing, made
    integer(c_int) :: status
    reducing = c_null_ptr
    if (present(reducer)) reducing = reducer%handle
    status = c_stepping_create(optimizer%handle, reducing, list%of(options), made)
    call finish_create(self, made, status, stat, errmsg)
  end subroutine

  !> Makes one optimizer of several of different parameters: state and groups of member i go by
  !> names(i) and a dot before their own name. A step is a step of each. Not for LBFGS.
  subroutine lockstep_combine(optimizer, names, members, stat, errmsg)
    type(lockstep_optimizer), intent(inout) :: optimizer
    character(*), intent(in) :: names(:)
    type(lockstep_optimizer), intent(in) :: members(:)
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    character(kind=c_char), target :: texts(len(names) + 1, size(names))
    type(c_ptr) :: pointers(size(names)), made
    integer(c_int) :: status
    character(80) :: message
    integer :: i
    if (size(names) /= size(members)) then
      write (message, '(2(a,i0))') 'expected as many names as the ', size(members), ' optimizers, found ', size(names)
      call fail(LOCKSTEP_ERROR_OPTION, trim(message), stat, errmsg)
      return
    end if
    do i = 1, size(names)
      call put_text(names(i), texts(:, i))
      pointers(i) = c_loc(texts(1, i))
    end do
    status = c_optimizer_combine(size(names, kind=c_int64_t), pointers, members%handle, made)
    call finish_create(optimizer, made, status, stat, errmsg)
  end subroutine

end module
