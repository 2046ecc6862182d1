!> Calls of C: checkpoint.h.
module lockstep_c_checkpoint
  use, intrinsic :: iso_c_binding
  use lockstep_arrays, only: c_array
  implicit none

  interface
    function c_items_create(made) bind(c, name="lockstep_items_create") result(status)
      import
      type(c_ptr), intent(inout) :: made
      integer(c_int) :: status
    end function
    function c_items_add(items, name, object) bind(c, name="lockstep_items_add") result(status)
      import
      type(c_ptr), value :: items
      character(kind=c_char), intent(in) :: name(*)
      type(c_ptr), value :: object
      integer(c_int) :: status
    end function
    function c_items_add_array(items, item, name, array) &
      bind(c, name="lockstep_items_add_array") result(status)
      import
      type(c_ptr), value :: items
      character(kind=c_char), intent(in) :: item(*), name(*)
      type(c_array), intent(in) :: array
      integer(c_int) :: status
    end function
    function c_items_add_range(items, item, name, whole, begin, count) &
      bind(c, name="lockstep_items_add_range") result(status)
      import
      type(c_ptr), value :: items
      character(kind=c_char), intent(in) :: item(*), name(*)
      type(c_array), intent(in) :: whole
      integer(c_int64_t), value :: begin, count
      integer(c_int) :: status
    end function
    function c_items_add_integer(items, item, name, number) &
      bind(c, name="lockstep_items_add_integer") result(status)
      import
      type(c_ptr), value :: items
      character(kind=c_char), intent(in) :: item(*), name(*)
      type(c_ptr), value :: number
      integer(c_int) :: status
    end function
    function c_items_add_real(items, item, name, number) &
      bind(c, name="lockstep_items_add_real") result(status)
      import
      type(c_ptr), value :: items
      character(kind=c_char), intent(in) :: item(*), name(*)
      type(c_ptr), value :: number
      integer(c_int) :: status
    end function
    function c_checkpoint_save(path, communicator, items) &
      bind(c, name="lockstep_checkpoint_save") result(status)
      import
      character(kind=c_char), intent(in) :: path(*)
      type(c_ptr), value :: communicator, items
      integer(c_int) :: status
    end function
    function c_checkpoint_load(path, communicator, items, options) &
      bind(c, name="lockstep_checkpoint_load") result(status)
      import
      character(kind=c_char), intent(in) :: path(*)
      type(c_ptr), value :: communicator, items, options
      integer(c_int) :: status
    end function
    function c_manager_create(folder, communicator, items, options, made) &
      bind(c, name="lockstep_manager_create") result(status)
      import
      character(kind=c_char), intent(in) :: folder(*)
      type(c_ptr), value :: communicator, items, options
      type(c_ptr), intent(inout) :: made
      integer(c_int) :: status
    end function
    function c_manager_load_latest(manager, step) bind(c, name="lockstep_manager_load_latest") result(status)
      import
      type(c_ptr), value :: manager
      integer(c_int64_t), intent(inout) :: step
      integer(c_int) :: status
    end function
    function c_manager_load_best(manager, step) bind(c, name="lockstep_manager_load_best") result(status)
      import
      type(c_ptr), value :: manager
      integer(c_int64_t), intent(inout) :: step
      integer(c_int) :: status
    end function
    function c_manager_step(manager, step, metric, saved) bind(c, name="lockstep_manager_step") result(status)
      import
      type(c_ptr), value :: manager
      integer(c_int64_t), value :: step
      real(c_double), intent(in), optional :: metric
      integer(c_int), intent(inout), optional :: saved
      integer(c_int) :: status
    end function
    function c_manager_save(manager, step, metric) bind(c, name="lockstep_manager_save") result(status)
      import
      type(c_ptr), value :: manager
      integer(c_int64_t), value :: step
      real(c_double), intent(in), optional :: metric
      integer(c_int) :: status
    end function
    function c_manager_wait(manager) bind(c, name="lockstep_manager_wait") result(status)
      import
      type(c_ptr), value :: manager
      integer(c_int) :: status
    end function
    function c_manager_stop_requested(manager, requested) &
      bind(c, name="lockstep_manager_stop_requested") result(status)
      import
      type(c_ptr), value :: manager
      integer(c_int), intent(inout) :: requested
      integer(c_int) :: status
    end function
  end interface

end module
