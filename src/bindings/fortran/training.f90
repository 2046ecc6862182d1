!> Training in the time that a simulation has for it. See lockstep.f90.
module lockstep_training
  use lockstep_base
  use lockstep_arrays
  use lockstep_callbacks
  use lockstep_c_training
  use lockstep_models, only: lockstep_replica, lockstep_loss, c_loss_of
  use lockstep_optimizers, only: lockstep_optimizer
  use lockstep_ranks, only: lockstep_communicator
  use lockstep_reservoirs, only: lockstep_reservoir
  use lockstep_schedules, only: lockstep_scheduler
  implicit none
  private
  public :: lockstep_trainer, lockstep_train_function, lockstep_train_report

  !> Runs steps of training.
  type, extends(lockstep_object) :: lockstep_trainer
  contains
    !> call trainer%create(replica, optimizer, loss, scheduler, reservoir, samples) trains a
    !> replica. A step forgets gradients, computes those of a batch, and makes a step of the
    !> optimizer, and of the scheduler where there is one. Batches have `samples` snapshots of the
    !> reservoir over all ranks; without one step() is given them. The context of a loss of the
    !> caller's must outlive the trainer.
    !> call trainer%create(communicator, function, context): a step is a lockstep_train_function.
    !> `context` is a target, which must outlive the trainer.
    generic :: create => create_trainer, create_function
    !> call trainer%step(inputs, targets, mean_loss): one step with this rank's samples of a batch,
    !> as of replica%backward(); where it has none with extents of 0, or by call
    !> trainer%step(mean_loss). `mean_loss` is that over these. Collective.
    generic :: step => step_without, step_f32_f32, step_f64_f64, step_f32_f64, &
      step_f64_f32, step_f32_i64, step_f64_i64
    !> So many steps, of int32 or int64. Collective.
    generic :: train => train_int32, train_int64
    !> As many steps as fit into so many seconds on the slowest rank, by what the last ones took:
    !> the same number on all. Of the first two nobody knows, so they are made in any case.
    !> Collective.
    procedure :: train_for
    procedure, private :: create_trainer, create_function, train_int32, train_int64, step_without
    procedure, private :: step_f32_f32, step_f64_f64, step_f32_f64, &
      step_f64_f32, step_f32_i64, step_f64_i64
  end type

  abstract interface
    !> A step of training of the caller's own, collective, which tells its mean loss over this
    !> rank's samples and their number. Another `stat` than 0 ends training with
    !> LOCKSTEP_ERROR_CALLBACK, and must be on all ranks.
    subroutine lockstep_train_function(loss, samples, stat, context)
      import
      real(real64), intent(out) :: loss
      integer(int64), intent(out) :: samples
      integer, intent(inout) :: stat ! 0 before
      class(*), intent(inout), optional :: context
    end subroutine
  end interface

contains

  subroutine create_trainer(self, replica, optimizer, loss, scheduler, reservoir, samples, stat, errmsg)
    class(lockstep_trainer), intent(inout) :: self
    type(lockstep_replica), intent(in) :: replica
    type(lockstep_optimizer), intent(in) :: optimizer
    type(lockstep_loss), intent(in) :: loss
    type(lockstep_scheduler), intent(in), optional :: scheduler
    type(lockstep_reservoir), intent(in), optional :: reservoir
    integer, intent(in), optional :: samples
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    character(kind=c_char), allocatable, target :: name(:)
    type(c_ptr) :: own_scheduler, own_reservoir, made
    integer(c_int64_t) :: own_samples
    integer(c_int) :: status
    own_scheduler = c_null_ptr
    if (present(scheduler)) own_scheduler = scheduler%handle
    own_reservoir = c_null_ptr
    if (present(reservoir)) own_reservoir = reservoir%handle
    own_samples = 0
    if (present(samples)) own_samples = samples
    status = c_trainer_create(replica%handle, optimizer%handle, c_loss_of(loss, name, kept=.true.), &
                              own_scheduler, own_reservoir, own_samples, made)
    call finish_create(self, made, status, stat, errmsg)
  end subroutine

  subroutine create_function(self, communicator, function, context, stat, errmsg)
    class(lockstep_trainer), intent(inout) :: self
    type(lockstep_communicator), intent(in) :: communicator
    procedure(lockstep_train_function) :: function
    class(*), intent(inout), target, optional :: context
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    class(*), pointer :: own_context
    type(c_ptr) :: made
    integer(c_int) :: status
    nullify (own_context)
    if (present(context)) own_context => context
    status = c_trainer_create_function(communicator%handle, c_funloc(call_function), &
                                       keep_callback(c_funloc(function), own_context), made)
    call finish_create(self, made, status, stat, errmsg)
  end subroutine

  function call_function(at, loss, samples) bind(c, name="") result(failed)
    type(c_ptr), value :: at
    real(c_double), intent(inout) :: loss
    integer(c_int64_t), intent(inout) :: samples
    integer(c_int) :: failed
    type(callback), pointer :: one
    procedure(lockstep_train_function), pointer :: own
    integer :: stat
    call c_f_pointer(at, one)
    call c_f_procpointer(one%procedure, own)
    stat = 0
    if (associated(one%context)) then
      call own(loss, samples, stat, one%context)
    else
      call own(loss, samples, stat)
    end if
    failed = stat
  end function

  subroutine step_without(self, mean_loss, stat, errmsg)
    class(lockstep_trainer), intent(in) :: self
    real(real64), intent(inout), optional :: mean_loss
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    call finish(c_trainer_step(self%handle, mean_loss=mean_loss), stat, errmsg)
  end subroutine

  subroutine step_f32_f32(self, inputs, targets, mean_loss, stat, errmsg)
    class(lockstep_trainer), intent(in) :: self
    real(real32), intent(in), target :: inputs(..), targets(..)
    real(real64), intent(inout), optional :: mean_loss
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    call finish(c_trainer_step(self%handle, described(inputs), described(targets), mean_loss), stat, errmsg)
  end subroutine

  subroutine step_f64_f64(self, inputs, targets, mean_loss, stat, errmsg)
    class(lockstep_trainer), intent(in) :: self
    real(real64), intent(in), target :: inputs(..), targets(..)
    real(real64), intent(inout), optional :: mean_loss
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    call finish(c_trainer_step(self%handle, described(inputs), described(targets), mean_loss), stat, errmsg)
  end subroutine

  subroutine step_f32_f64(self, inputs, targets, mean_loss, stat, errmsg)
    class(lockstep_trainer), intent(in) :: self
    real(real32), intent(in), target :: inputs(..)
    real(real64), intent(in), target :: targets(..)
    real(real64), intent(inout), optional :: mean_loss
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    call finish(c_trainer_step(self%handle, described(inputs), described(targets), mean_loss), stat, errmsg)
  end subroutine

  subroutine step_f64_f32(self, inputs, targets, mean_loss, stat, errmsg)
    class(lockstep_trainer), intent(in) :: self
    real(real64), intent(in), target :: inputs(..)
    real(real32), intent(in), target :: targets(..)
    real(real64), intent(inout), optional :: mean_loss
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    call finish(c_trainer_step(self%handle, described(inputs), described(targets), mean_loss), stat, errmsg)
  end subroutine

  subroutine step_f32_i64(self, inputs, targets, mean_loss, stat, errmsg)
    class(lockstep_trainer), intent(in) :: self
    real(real32), intent(in), target :: inputs(..)
    integer(int64), intent(in), target :: targets(..)
    real(real64), intent(inout), optional :: mean_loss
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    call finish(c_trainer_step(self%handle, described(inputs), described(targets), mean_loss), stat, errmsg)
  end subroutine

  subroutine step_f64_i64(self, inputs, targets, mean_loss, stat, errmsg)
    class(lockstep_trainer), intent(in) :: self
    real(real64), intent(in), target :: inputs(..)
    integer(int64), intent(in), target :: targets(..)
    real(real64), intent(inout), optional :: mean_loss
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    call finish(c_trainer_step(self%handle, described(inputs), described(targets), mean_loss), stat, errmsg)
  end subroutine

  subroutine train_int32(self, steps, report, stat, errmsg)
    class(lockstep_trainer), intent(in) :: self
    integer(int32), intent(in) :: steps
    type(lockstep_train_report), intent(inout), optional :: report
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    call train_int64(self, int(steps, int64), report, stat, errmsg)
  end subroutine

  subroutine train_int64(self, steps, report, stat, errmsg)
    class(lockstep_trainer), intent(in) :: self
    integer(int64), intent(in) :: steps
    type(lockstep_train_report), intent(inout), optional :: report
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    call finish(c_trainer_train(self%handle, steps, report), stat, errmsg)
  end subroutine

  subroutine train_for(self, seconds, report, stat, errmsg)
    class(lockstep_trainer), intent(in) :: self
    real(real64), intent(in) :: seconds
    type(lockstep_train_report), intent(inout), optional :: report
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    call finish(c_trainer_train_for(self%handle, seconds, report), stat, errmsg)
  end subroutine

end module
