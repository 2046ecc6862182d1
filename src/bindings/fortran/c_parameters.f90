!> Calls of C: parameters.h and ranks.h.
module lockstep_c_parameters
  use, intrinsic :: iso_c_binding
  use lockstep_arrays, only: c_array
  implicit none

  interface
    function c_environment_create(argc, argv, made) bind(c, name="lockstep_environment_create") result(status)
      import
      type(c_ptr), value :: argc, argv
      type(c_ptr), intent(inout) :: made
      integer(c_int) :: status
    end function
    function c_communicator_create_f(communicator, options, made) &
      bind(c, name="lockstep_communicator_create_f") result(status)
      import
      integer(c_int), value :: communicator
      type(c_ptr), value :: options
      type(c_ptr), intent(inout) :: made
      integer(c_int) :: status
    end function
    function c_communicator_rank(communicator, rank) bind(c, name="lockstep_communicator_rank") result(status)
      import
      type(c_ptr), value :: communicator
      integer(c_int), intent(inout) :: rank
      integer(c_int) :: status
    end function
    function c_communicator_size(communicator, size) bind(c, name="lockstep_communicator_size") result(status)
      import
      type(c_ptr), value :: communicator
      integer(c_int), intent(inout) :: size
      integer(c_int) :: status
    end function
    function c_communicator_close(communicator) bind(c, name="lockstep_communicator_close") result(status)
      import
      type(c_ptr), value :: communicator
      integer(c_int) :: status
    end function
    function c_watchdog_create(communicator, options, made) bind(c, name="lockstep_watchdog_create") result(status)
      import
      type(c_ptr), value :: communicator, options
      type(c_ptr), intent(inout) :: made
      integer(c_int) :: status
    end function
    function c_parameters_create(made) bind(c, name="lockstep_parameters_create") result(status)
      import
      type(c_ptr), intent(inout) :: made
      integer(c_int) :: status
    end function
    function c_parameters_borrow(parameters, name, array) &
      bind(c, name="lockstep_parameters_borrow") result(status)
      import
      type(c_ptr), value :: parameters
      character(kind=c_char), intent(in) :: name(*)
      type(c_array), intent(in) :: array
      integer(c_int) :: status
    end function
    function c_parameters_add(parameters, name, array) bind(c, name="lockstep_parameters_add") result(status)
      import
      type(c_ptr), value :: parameters
      character(kind=c_char), intent(in) :: name(*)
      type(c_array), intent(in) :: array
      integer(c_int) :: status
    end function
    function c_parameters_count(parameters, count) bind(c, name="lockstep_parameters_count") result(status)
      import
      type(c_ptr), value :: parameters
      integer(c_int64_t), intent(inout) :: count
      integer(c_int) :: status
    end function
    function c_parameters_name(parameters, index, name) &
      bind(c, name="lockstep_parameters_name") result(status)
      import
      type(c_ptr), value :: parameters
      integer(c_int64_t), value :: index
      type(c_ptr), intent(inout) :: name
      integer(c_int) :: status
    end function
    function c_parameters_value(parameters, name, array) &
      bind(c, name="lockstep_parameters_value") result(status)
      import
      type(c_ptr), value :: parameters
      character(kind=c_char), intent(in) :: name(*)
      type(c_array), intent(inout) :: array
      integer(c_int) :: status
    end function
    function c_parameters_gradient(parameters, name, array) &
      bind(c, name="lockstep_parameters_gradient") result(status)
      import
      type(c_ptr), value :: parameters
      character(kind=c_char), intent(in) :: name(*)
      type(c_array), intent(inout) :: array
      integer(c_int) :: status
    end function
    function c_parameters_read_gradient(parameters, name, array) &
      bind(c, name="lockstep_parameters_read_gradient") result(status)
      import
      type(c_ptr), value :: parameters
      character(kind=c_char), intent(in) :: name(*)
      type(c_array), intent(inout) :: array
      integer(c_int) :: status
    end function
    function c_parameters_has_gradient(parameters, name, has) &
      bind(c, name="lockstep_parameters_has_gradient") result(status)
      import
      type(c_ptr), value :: parameters
      character(kind=c_char), intent(in) :: name(*)
      integer(c_int), intent(inout) :: has
      integer(c_int) :: status
    end function
    function c_parameters_zero_gradients(parameters) &
      bind(c, name="lockstep_parameters_zero_gradients") result(status)
      import
      type(c_ptr), value :: parameters
      integer(c_int) :: status
    end function
    function c_parameters_set_requires_gradient(parameters, name, requires_gradient) &
      bind(c, name="lockstep_parameters_set_requires_gradient") result(status)
      import
      type(c_ptr), value :: parameters
      character(kind=c_char), intent(in) :: name(*)
      integer(c_int), value :: requires_gradient
      integer(c_int) :: status
    end function
    function c_reducer_create(parameters, communicator, options, made) &
      bind(c, name="lockstep_reducer_create") result(status)
      import
      type(c_ptr), value :: parameters, communicator, options
      type(c_ptr), intent(inout) :: made
      integer(c_int) :: status
    end function
    function c_reducer_set_weight(reducer, weight) bind(c, name="lockstep_reducer_set_weight") result(status)
      import
      type(c_ptr), value :: reducer
      real(c_double), value :: weight
      integer(c_int) :: status
    end function
    function c_reducer_mark_ready(reducer, name) bind(c, name="lockstep_reducer_mark_ready") result(status)
      import
      type(c_ptr), value :: reducer
      character(kind=c_char), intent(in) :: name(*)
      integer(c_int) :: status
    end function
    function c_reducer_finish(reducer) bind(c, name="lockstep_reducer_finish") result(status)
      import
      type(c_ptr), value :: reducer
      integer(c_int) :: status
    end function
    function c_reducer_set_accumulating(reducer, accumulating) &
      bind(c, name="lockstep_reducer_set_accumulating") result(status)
      import
      type(c_ptr), value :: reducer
      integer(c_int), value :: accumulating
      integer(c_int) :: status
    end function
    function c_reducer_discard(reducer) bind(c, name="lockstep_reducer_discard") result(status)
      import
      type(c_ptr), value :: reducer
      integer(c_int) :: status
    end function
    function c_reducer_waited(reducer, seconds) bind(c, name="lockstep_reducer_waited") result(status)
      import
      type(c_ptr), value :: reducer
      real(c_double), intent(inout) :: seconds
      integer(c_int) :: status
    end function
  end interface

end module
