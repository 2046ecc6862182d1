!> Lists of parameters by name. See lockstep.f90.
module lockstep_parameter_lists
  use lockstep_base
  use lockstep_arrays
  use lockstep_c_parameters
  implicit none
  private
  public :: parameter_list

  !> What lockstep_parameters has beside pointers to values and gradients.
  type, extends(lockstep_object) :: parameter_list
  contains
    !> An empty list.
    procedure :: create => create_parameters
    !> call parameters%borrow(name, array) adds a parameter that lives in the caller's array, a
    !> contiguous target or pointer of real32 or real64, which must outlive all objects that have
    !> it. It stays there: the array is read and written in place, and copied nowhere but into a
    !> reduction.
    generic :: borrow => borrow_f32, borrow_f64
    !> call parameters%add(name, array) adds a parameter in memory of lockstep, with a copy of the
    !> array's numbers.
    generic :: add => add_f32, add_f64
    procedure :: count => count_parameters
    !> The name of parameter `index`, from 1.
    procedure :: name => parameter_name
    procedure :: has_gradient
    !> Forgets all gradients.
    procedure :: zero_gradients
    !> Whether a parameter is trained, alike on all ranks.
    procedure :: set_requires_gradient
    procedure, private :: borrow_f32, borrow_f64, add_f32, add_f64
  end type

contains

  subroutine create_parameters(self, stat, errmsg)
    class(parameter_list), intent(inout) :: self
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    type(c_ptr) :: made
    integer(c_int) :: status
    status = c_parameters_create(made)
    call finish_create(self, made, status, stat, errmsg)
  end subroutine

  subroutine borrow_f32(self, name, array, stat, errmsg)
    class(parameter_list), intent(in) :: self
    character(*), intent(in) :: name
    real(real32), pointer, intent(in) :: array(..)
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    call finish(c_parameters_borrow(self%handle, trim(name)//c_null_char, kept(array)), stat, errmsg)
  end subroutine

  subroutine borrow_f64(self, name, array, stat, errmsg)
    class(parameter_list), intent(in) :: self
    character(*), intent(in) :: name
    real(real64), pointer, intent(in) :: array(..)
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    call finish(c_parameters_borrow(self%handle, trim(name)//c_null_char, kept(array)), stat, errmsg)
  end subroutine

  subroutine add_f32(self, name, array, stat, errmsg)
    class(parameter_list), intent(in) :: self
    character(*), intent(in) :: name
    real(real32), intent(in), target :: array(..)
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    call finish(c_parameters_add(self%handle, trim(name)//c_null_char, described(array)), stat, errmsg)
  end subroutine

  subroutine add_f64(self, name, array, stat, errmsg)
    class(parameter_list), intent(in) :: self
    character(*), intent(in) :: name
    real(real64), intent(in), target :: array(..)
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    call finish(c_parameters_add(self%handle, trim(name)//c_null_char, described(array)), stat, errmsg)
  end subroutine

  subroutine count_parameters(self, count, stat, errmsg)
    class(parameter_list), intent(in) :: self
    integer, intent(inout) :: count
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    integer(c_int64_t) :: found
    integer(c_int) :: status
    status = c_parameters_count(self%handle, found)
    if (status == LOCKSTEP_OK) count = int(found)
    call finish(status, stat, errmsg)
  end subroutine

  subroutine parameter_name(self, index, name, stat, errmsg)
    class(parameter_list), intent(in) :: self
    integer, intent(in) :: index
    character(:), allocatable, intent(inout) :: name
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    type(c_ptr) :: found
    integer(c_int) :: status
    status = c_parameters_name(self%handle, index - 1_c_int64_t, found)
    if (status == LOCKSTEP_OK) call copy_text(found, name)
    call finish(status, stat, errmsg)
  end subroutine

  subroutine has_gradient(self, name, has, stat, errmsg)
    class(parameter_list), intent(in) :: self
    character(*), intent(in) :: name
    logical, intent(inout) :: has
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    integer(c_int) :: status, found
    status = c_parameters_has_gradient(self%handle, trim(name)//c_null_char, found)
    if (status == LOCKSTEP_OK) has = found /= 0
    call finish(status, stat, errmsg)
  end subroutine

  subroutine zero_gradients(self, stat, errmsg)
    class(parameter_list), intent(in) :: self
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    call finish(c_parameters_zero_gradients(self%handle), stat, errmsg)
  end subroutine

  subroutine set_requires_gradient(self, name, requires_gradient, stat, errmsg)
    class(parameter_list), intent(in) :: self
    character(*), intent(in) :: name
    logical, intent(in) :: requires_gradient
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    call finish(c_parameters_set_requires_gradient(self%handle, trim(name)//c_null_char, &
                                                   merge(1_c_int, 0_c_int, requires_gradient)), stat, errmsg)
  end subroutine

end module
