!> Calls of C: optimizer.h and schedule.h.
module lockstep_c_optimizer
  use, intrinsic :: iso_c_binding
  use lockstep_arrays, only: c_array
  implicit none

  type, bind(c) :: c_update
    integer(c_int) :: dtype
    integer(c_int64_t) :: size
    type(c_ptr) :: value, gradient
    type(c_ptr) :: slots, hyper_parameters ! of arrays
    integer(c_int64_t) :: step
    real(c_double) :: gradient_scale
  end type

  type, bind(c) :: c_field
    type(c_ptr) :: name
    real(c_double) :: value
  end type

  type, bind(c) :: c_rule
    type(c_ptr) :: name
    integer(c_int64_t) :: slot_count
    type(c_ptr) :: slot_names
    integer(c_int64_t) :: hyper_parameter_count
    type(c_ptr) :: hyper_parameters
    integer(c_int) :: whole_parameters
    type(c_funptr) :: update
    type(c_ptr) :: context
  end type

  type, bind(c) :: c_step_report
    integer(c_int) :: applied = 0, empty = 0
    real(c_double) :: gradient_norm = 0
  end type

  interface
    function c_optimizer_create(parameters, rule, options, made) &
      bind(c, name="lockstep_optimizer_create") result(status)
      import
      type(c_ptr), value :: parameters
      character(kind=c_char), intent(in) :: rule(*)
      type(c_ptr), value :: options
      type(c_ptr), intent(inout) :: made
      integer(c_int) :: status
    end function
    function c_optimizer_create_sharded(parameters, rule, options, communicator, made) &
      bind(c, name="lockstep_optimizer_create_sharded") result(status)
      import
      type(c_ptr), value :: parameters
      character(kind=c_char), intent(in) :: rule(*)
      type(c_ptr), value :: options, communicator
      type(c_ptr), intent(inout) :: made
      integer(c_int) :: status
    end function
    function c_optimizer_create_custom(parameters, rule, options, communicator, made) &
      bind(c, name="lockstep_optimizer_create_custom") result(status)
      import
      type(c_ptr), value :: parameters
      type(c_rule), intent(in) :: rule
      type(c_ptr), value :: options, communicator
      type(c_ptr), intent(inout) :: made
      integer(c_int) :: status
    end function
    function c_optimizer_combine(count, names, optimizers, made) &
      bind(c, name="lockstep_optimizer_combine") result(status)
      import
      integer(c_int64_t), value :: count
      type(c_ptr), intent(in) :: names(*), optimizers(*)
      type(c_ptr), intent(inout) :: made
      integer(c_int) :: status
    end function
    function c_stepping_create(optimizer, reducer, options, made) &
      bind(c, name="lockstep_stepping_create") result(status)
      import
      type(c_ptr), value :: optimizer, reducer, options
      type(c_ptr), intent(inout) :: made
      integer(c_int) :: status
    end function
    function c_optimizer_add_group(optimizer, options) &
      bind(c, name="lockstep_optimizer_add_group") result(status)
      import
      type(c_ptr), value :: optimizer, options
      integer(c_int) :: status
    end function
    function c_optimizer_set(optimizer, group, options) bind(c, name="lockstep_optimizer_set") result(status)
      import
      type(c_ptr), value :: optimizer, group, options
      integer(c_int) :: status
    end function
    function c_optimizer_get(optimizer, group, field, value) &
      bind(c, name="lockstep_optimizer_get") result(status)
      import
      type(c_ptr), value :: optimizer, group
      character(kind=c_char), intent(in) :: field(*)
      real(c_double), intent(inout) :: value
      integer(c_int) :: status
    end function
    function c_optimizer_clip(optimizer, options) bind(c, name="lockstep_optimizer_clip") result(status)
      import
      type(c_ptr), value :: optimizer, options
      integer(c_int) :: status
    end function
    function c_optimizer_step(optimizer, options, report) &
      bind(c, name="lockstep_optimizer_step") result(status)
      import
      type(c_ptr), value :: optimizer, options
      type(c_step_report), intent(inout), optional :: report
      integer(c_int) :: status
    end function
    function c_optimizer_step_closure(optimizer, closure, context, loss) &
      bind(c, name="lockstep_optimizer_step_closure") result(status)
      import
      type(c_ptr), value :: optimizer
      type(c_funptr), value :: closure
      type(c_ptr), value :: context
      real(c_double), intent(inout), optional :: loss
      integer(c_int) :: status
    end function
    function c_optimizer_zero_gradients(optimizer) &
      bind(c, name="lockstep_optimizer_zero_gradients") result(status)
      import
      type(c_ptr), value :: optimizer
      integer(c_int) :: status
    end function
    function c_optimizer_slot(optimizer, parameter, slot, array) &
      bind(c, name="lockstep_optimizer_slot") result(status)
      import
      type(c_ptr), value :: optimizer
      character(kind=c_char), intent(in) :: parameter(*), slot(*)
      type(c_array), intent(inout) :: array
      integer(c_int) :: status
    end function
    function c_optimizer_before_step(optimizer, hook, context, number) &
      bind(c, name="lockstep_optimizer_before_step") result(status)
      import
      type(c_ptr), value :: optimizer
      type(c_funptr), value :: hook
      type(c_ptr), value :: context
      integer(c_int64_t), intent(inout), optional :: number
      integer(c_int) :: status
    end function
    function c_optimizer_after_step(optimizer, hook, context, number) &
      bind(c, name="lockstep_optimizer_after_step") result(status)
      import
      type(c_ptr), value :: optimizer
      type(c_funptr), value :: hook
      type(c_ptr), value :: context
      integer(c_int64_t), intent(inout), optional :: number
      integer(c_int) :: status
    end function
    function c_optimizer_remove_hook(optimizer, number) &
      bind(c, name="lockstep_optimizer_remove_hook") result(status)
      import
      type(c_ptr), value :: optimizer
      integer(c_int64_t), value :: number
      integer(c_int) :: status
    end function
    function c_schedule_create(name, options, made) bind(c, name="lockstep_schedule_create") result(status)
      import
      character(kind=c_char), intent(in) :: name(*)
      type(c_ptr), value :: options
      type(c_ptr), intent(inout) :: made
      integer(c_int) :: status
    end function
    function c_schedule_create_function(factor, context, made) &
      bind(c, name="lockstep_schedule_create_function") result(status)
      import
      type(c_funptr), value :: factor
      type(c_ptr), value :: context
      type(c_ptr), intent(inout) :: made
      integer(c_int) :: status
    end function
    function c_schedule_warm_up(steps, start, next, made) &
      bind(c, name="lockstep_schedule_warm_up") result(status)
      import
      integer(c_int64_t), value :: steps
      real(c_double), value :: start
      type(c_ptr), value :: next
      type(c_ptr), intent(inout) :: made
      integer(c_int) :: status
    end function
    function c_schedule_sequence(count, schedules, until, made) &
      bind(c, name="lockstep_schedule_sequence") result(status)
      import
      integer(c_int64_t), value :: count
      type(c_ptr), intent(in) :: schedules(*)
      integer(c_int64_t), intent(in) :: until(*)
      type(c_ptr), intent(inout) :: made
      integer(c_int) :: status
    end function
    function c_schedule_chain(count, schedules, made) bind(c, name="lockstep_schedule_chain") result(status)
      import
      integer(c_int64_t), value :: count
      type(c_ptr), intent(in) :: schedules(*)
      type(c_ptr), intent(inout) :: made
      integer(c_int) :: status
    end function
    function c_scheduler_create(optimizer, schedule, field, group, made) &
      bind(c, name="lockstep_scheduler_create") result(status)
      import
      type(c_ptr), value :: optimizer, schedule, field, group
      type(c_ptr), intent(inout) :: made
      integer(c_int) :: status
    end function
    function c_scheduler_step(scheduler, metric) bind(c, name="lockstep_scheduler_step") result(status)
      import
      type(c_ptr), value :: scheduler
      real(c_double), intent(in), optional :: metric
      integer(c_int) :: status
    end function
    function c_scheduler_last_step(scheduler, step) &
      bind(c, name="lockstep_scheduler_last_step") result(status)
      import
      type(c_ptr), value :: scheduler
      integer(c_int64_t), intent(inout) :: step
      integer(c_int) :: status
    end function
  end interface

end module
