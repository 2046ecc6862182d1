!> Hyper-parameters that follow the step. See lockstep.f90.
module lockstep_schedules
  use lockstep_base
  use lockstep_callbacks
  use lockstep_options
  use lockstep_c_optimizer
  use lockstep_optimizers, only: lockstep_optimizer
  implicit none
  private
  public :: lockstep_schedule, lockstep_schedule_function, lockstep_scheduler

  type, extends(lockstep_object) :: lockstep_schedule
  contains
    !> call schedule%create(name, options): a schedule with the options that docs/optimizers.md has:
    !> constant, step, multi_step (with `milestones` several times), exponential, linear, cosine,
    !> cosine_restarts, polynomial, one_cycle, one_cycle_momentum, inverse_sqrt, on_plateau.
    !> call schedule%create(function, context): the base value times a lockstep_schedule_function of
    !> the step. `context` is a target, which must outlive the schedule and what is made of it.
    generic :: create => create_named, create_function
    !> call schedule%warm_up(steps, start, next): rises from `start` times what `next` begins with
    !> in so many steps, of int32 or int64, and then is `next`.
    generic :: warm_up => warm_up_int32, warm_up_int64
    !> call schedule%sequence(schedules, until): one after another: schedule i until step until(i),
    !> the last for ever, so that there is one less of these, of int32 or int64. Steps count from 0.
    generic :: sequence => sequence_int32, sequence_int64
    !> All at once: the base of each is the value of the one before.
    procedure :: chain
    procedure, private :: create_named, create_function, warm_up_int32, warm_up_int64, sequence_int32, &
      sequence_int64
  end type

  type, extends(lockstep_object) :: lockstep_scheduler
  contains
    !> call scheduler%create(optimizer, schedule, field, group) sets a hyper-parameter, "lr" without
    !> a field, of a group, or all groups without one, step by step; that of step 0 at once. One for
    !> each hyper-parameter.
    procedure :: create => create_scheduler
    !> Goes on by a step, after the optimizer's. `metric` is for schedules that want one.
    procedure :: step => step_scheduler
    procedure :: last_step
  end type

  abstract interface
    !> A factor for step 0, 1, 2, ...: alike on all ranks.
    function lockstep_schedule_function(step, context) result(factor)
      import
      integer(int64), intent(in) :: step
      class(*), intent(inout), optional :: context
      real(real64) :: factor
    end function
  end interface

contains

  subroutine create_named(self, name, options, stat, errmsg)
    class(lockstep_schedule), intent(inout) :: self
    character(*), intent(in) :: name
    type(lockstep_option), intent(in), optional :: options(:)
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    type(c_options) :: list
    type(c_ptr) :: made
    integer(c_int) :: status
    status = c_schedule_create(trim(name)//c_null_char, list%of(options), made)
    call finish_create(self, made, status, stat, errmsg)
  end subroutine

  subroutine create_function(self, function, context, stat, errmsg)
    class(lockstep_schedule), intent(inout) :: self
    procedure(lockstep_schedule_function) :: function
    class(*), intent(inout), target, optional :: context
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    class(*), pointer :: own_context
    type(c_ptr) :: made
    integer(c_int) :: status
    nullify (own_context)
    if (present(context)) own_context => context
    status = c_schedule_create_function(c_funloc(call_function), &
                                        keep_callback(c_funloc(function), own_context), made)
    call finish_create(self, made, status, stat, errmsg)
  end subroutine

  function call_function(at, step) bind(c, name="") result(factor)
    type(c_ptr), value :: at
    integer(c_int64_t), value :: step
    real(c_double) :: factor
    type(callback), pointer :: one
    procedure(lockstep_schedule_function), pointer :: own
    call c_f_pointer(at, one)
    call c_f_procpointer(one%procedure, own)
    if (associated(one%context)) then
      factor = own(step, one%context)
    else
      factor = own(step)
    end if
  end function

  subroutine warm_up_int32(self, steps, start, next, stat, errmsg)
    class(lockstep_schedule), intent(inout) :: self
    integer(int32), intent(in) :: steps
    real(real64), intent(in) :: start
    type(lockstep_schedule), intent(in) :: next
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    call warm_up_int64(self, int(steps, int64), start, next, stat, errmsg)
  end subroutine

  subroutine warm_up_int64(self, steps, start, next, stat, errmsg)
    class(lockstep_schedule), intent(inout) :: self
    integer(int64), intent(in) :: steps
    real(real64), intent(in) :: start
    type(lockstep_schedule), intent(in) :: next
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    type(c_ptr) :: made
    integer(c_int) :: status
    status = c_schedule_warm_up(steps, start, next%handle, made)
    call finish_create(self, made, status, stat, errmsg)
  end subroutine

  subroutine sequence_int32(self, schedules, until, stat, errmsg)
    class(lockstep_schedule), intent(inout) :: self
    type(lockstep_schedule), intent(in) :: schedules(:)
    integer(int32), intent(in) :: until(:)
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    call sequence_int64(self, schedules, int(until, int64), stat, errmsg)
  end subroutine

  subroutine sequence_int64(self, schedules, until, stat, errmsg)
    class(lockstep_schedule), intent(inout) :: self
    type(lockstep_schedule), intent(in) :: schedules(:)
    integer(int64), intent(in) :: until(:)
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    type(c_ptr) :: made
    integer(c_int) :: status
    character(80) :: message
    if (size(until) /= size(schedules) - 1) then
      write (message, '(2(a,i0))') 'expected one step less than the ', size(schedules), ' schedules, found ', &
        size(until)
      call fail(LOCKSTEP_ERROR_OPTION, trim(message), stat, errmsg)
      return
    end if
    status = c_schedule_sequence(size(schedules, kind=c_int64_t), schedules%handle, until, made)
    call finish_create(self, made, status, stat, errmsg)
  end subroutine

  subroutine chain(self, schedules, stat, errmsg)
    class(lockstep_schedule), intent(inout) :: self
    type(lockstep_schedule), intent(in) :: schedules(:)
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    type(c_ptr) :: made
    integer(c_int) :: status
    status = c_schedule_chain(size(schedules, kind=c_int64_t), schedules%handle, made)
    call finish_create(self, made, status, stat, errmsg)
  end subroutine

  subroutine create_scheduler(self, optimizer, schedule, field, group, stat, errmsg)
    class(lockstep_scheduler), intent(inout) :: self
    type(lockstep_optimizer), intent(in) :: optimizer
    type(lockstep_schedule), intent(in) :: schedule
    character(*), intent(in), optional :: field, group
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    character(kind=c_char), allocatable, target :: texts(:), more_texts(:)
    type(c_ptr) :: made
    integer(c_int) :: status
    status = c_scheduler_create(optimizer%handle, schedule%handle, c_text(field, texts), &
                                c_text(group, more_texts), made)
    call finish_create(self, made, status, stat, errmsg)
  end subroutine

  subroutine step_scheduler(self, metric, stat, errmsg)
    class(lockstep_scheduler), intent(in) :: self
    real(real64), intent(in), optional :: metric
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    call finish(c_scheduler_step(self%handle, metric), stat, errmsg)
  end subroutine

  subroutine last_step(self, step, stat, errmsg)
    class(lockstep_scheduler), intent(in) :: self
    integer(int64), intent(inout) :: step
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    call finish(c_scheduler_last_step(self%handle, step), stat, errmsg)
  end subroutine

end module
