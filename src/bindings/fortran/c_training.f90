!> Calls of C: model.h and training.h.
module lockstep_c_training
  use, intrinsic :: iso_c_binding
  use lockstep_arrays, only: c_array
  implicit none

  type, bind(c) :: c_loss
    type(c_ptr) :: name = c_null_ptr
    type(c_funptr) :: function = c_null_funptr
    type(c_ptr) :: context = c_null_ptr
  end type

  !> What a call has trained.
  type, bind(c) :: lockstep_train_report
    integer(c_int64_t) :: steps = 0
    real(c_double) :: seconds = 0
    real(c_double) :: loss = 0 ! mean over the samples of all ranks and steps; NaN where there were none
  end type

  interface
    function c_model_create(made) bind(c, name="lockstep_model_create") result(status)
      import
      type(c_ptr), intent(inout) :: made
      integer(c_int) :: status
    end function
    function c_model_read(path, made) bind(c, name="lockstep_model_read") result(status)
      import
      character(kind=c_char), intent(in) :: path(*)
      type(c_ptr), intent(inout) :: made
      integer(c_int) :: status
    end function
    function c_model_add(model, type, options) bind(c, name="lockstep_model_add") result(status)
      import
      type(c_ptr), value :: model
      character(kind=c_char), intent(in) :: type(*)
      type(c_ptr), value :: options
      integer(c_int) :: status
    end function
    function c_model_initialize(model, seed) bind(c, name="lockstep_model_initialize") result(status)
      import
      type(c_ptr), value :: model
      integer(c_int64_t), value :: seed
      integer(c_int) :: status
    end function
    function c_model_parameters(model, made) bind(c, name="lockstep_model_parameters") result(status)
      import
      type(c_ptr), value :: model
      type(c_ptr), intent(inout) :: made
      integer(c_int) :: status
    end function
    function c_model_predict(model, inputs, outputs) bind(c, name="lockstep_model_predict") result(status)
      import
      type(c_ptr), value :: model
      type(c_array), intent(in) :: inputs, outputs
      integer(c_int) :: status
    end function
    function c_replica_create(model, communicator, options, made) &
      bind(c, name="lockstep_replica_create") result(status)
      import
      type(c_ptr), value :: model, communicator, options
      type(c_ptr), intent(inout) :: made
      integer(c_int) :: status
    end function
    function c_replica_reducer(replica, made) bind(c, name="lockstep_replica_reducer") result(status)
      import
      type(c_ptr), value :: replica
      type(c_ptr), intent(inout) :: made
      integer(c_int) :: status
    end function
    function c_replica_backward(replica, inputs, targets, loss, mean_loss) &
      bind(c, name="lockstep_replica_backward") result(status)
      import
      type(c_ptr), value :: replica
      type(c_array), intent(in), optional :: inputs, targets
      type(c_loss), intent(in) :: loss
      real(c_double), intent(inout), optional :: mean_loss
      integer(c_int) :: status
    end function
    function c_reservoir_create(communicator, capacity, input, target, options, made) &
      bind(c, name="lockstep_reservoir_create") result(status)
      import
      type(c_ptr), value :: communicator
      integer(c_int64_t), value :: capacity
      type(c_array), intent(in) :: input, target
      type(c_ptr), value :: options
      type(c_ptr), intent(inout) :: made
      integer(c_int) :: status
    end function
    function c_reservoir_add(reservoir, inputs, targets) bind(c, name="lockstep_reservoir_add") result(status)
      import
      type(c_ptr), value :: reservoir
      type(c_array), intent(in) :: inputs, targets
      integer(c_int) :: status
    end function
    function c_reservoir_draw(reservoir, samples, inputs, targets) &
      bind(c, name="lockstep_reservoir_draw") result(status)
      import
      type(c_ptr), value :: reservoir
      integer(c_int64_t), value :: samples
      type(c_array), intent(inout) :: inputs, targets
      integer(c_int) :: status
    end function
    function c_reservoir_size(reservoir, size) bind(c, name="lockstep_reservoir_size") result(status)
      import
      type(c_ptr), value :: reservoir
      integer(c_int64_t), intent(inout) :: size
      integer(c_int) :: status
    end function
    function c_reservoir_seen(reservoir, seen) bind(c, name="lockstep_reservoir_seen") result(status)
      import
      type(c_ptr), value :: reservoir
      integer(c_int64_t), intent(inout) :: seen
      integer(c_int) :: status
    end function
    function c_trainer_create(replica, optimizer, loss, scheduler, reservoir, samples, made) &
      bind(c, name="lockstep_trainer_create") result(status)
      import
      type(c_ptr), value :: replica, optimizer
      type(c_loss), intent(in) :: loss
      type(c_ptr), value :: scheduler, reservoir
      integer(c_int64_t), value :: samples
      type(c_ptr), intent(inout) :: made
      integer(c_int) :: status
    end function
    function c_trainer_create_function(communicator, step, context, made) &
      bind(c, name="lockstep_trainer_create_function") result(status)
      import
      type(c_ptr), value :: communicator
      type(c_funptr), value :: step
      type(c_ptr), value :: context
      type(c_ptr), intent(inout) :: made
      integer(c_int) :: status
    end function
    function c_trainer_step(trainer, inputs, targets, mean_loss) &
      bind(c, name="lockstep_trainer_step") result(status)
      import
      type(c_ptr), value :: trainer
      type(c_array), intent(in), optional :: inputs, targets
      real(c_double), intent(inout), optional :: mean_loss
      integer(c_int) :: status
    end function
    function c_trainer_train(trainer, steps, report) bind(c, name="lockstep_trainer_train") result(status)
      import
      type(c_ptr), value :: trainer
      integer(c_int64_t), value :: steps
      type(lockstep_train_report), intent(inout), optional :: report
      integer(c_int) :: status
    end function
    function c_trainer_train_for(trainer, seconds, report) &
      bind(c, name="lockstep_trainer_train_for") result(status)
      import
      type(c_ptr), value :: trainer
      real(c_double), value :: seconds
      type(lockstep_train_report), intent(inout), optional :: report
      integer(c_int) :: status
    end function
  end interface

end module
