!> Parameters, with pointers to their values and gradients. See lockstep.f90.
module lockstep_parameter_values
  use lockstep_base
  use lockstep_arrays
  use lockstep_c_parameters
  use lockstep_parameter_lists
  use lockstep_pointers
  implicit none
  private
  public :: lockstep_parameters

  integer, parameter :: of_value = 1, of_gradient = 2, of_read_gradient = 3

  !> A list of named parameters, in order.
  type, extends(parameter_list) :: lockstep_parameters
  contains
    !> call parameters%value(name, x): `x` is a pointer, of the parameter's kind and rank (1 to 4),
    !> to the value, to read and write in place; or a lockstep_array of any rank. Its memory is
    !> there as long as the parameter, but moves when a replica or reducer with the parameter is
    !> created or ends; a borrowed one stays.
    generic :: value => value_array, value_f32_1, value_f32_2, value_f32_3, value_f32_4, value_f64_1, value_f64_2, &
      value_f64_3, value_f64_4
    !> The same for the gradient, to write: zeros where there was none. Its memory is this rank's
    !> alone, and moves as the value's does.
    generic :: gradient => gradient_array, gradient_f32_1, gradient_f32_2, gradient_f32_3, gradient_f32_4, &
      gradient_f64_1, gradient_f64_2, gradient_f64_3, gradient_f64_4
    !> The same for the gradient, only to read: after a reduction the memory that the ranks of a
    !> node share, without a copy. LOCKSTEP_ERROR_STATE where there is none.
    generic :: read_gradient => read_gradient_array, read_gradient_f32_1, read_gradient_f32_2, read_gradient_f32_3, &
      read_gradient_f32_4, read_gradient_f64_1, read_gradient_f64_2, read_gradient_f64_3, &
      read_gradient_f64_4
    procedure, private :: value_array, value_f32_1, value_f32_2, value_f32_3, value_f32_4, value_f64_1, value_f64_2, &
      value_f64_3, value_f64_4
    procedure, private :: gradient_array, gradient_f32_1, gradient_f32_2, gradient_f32_3, gradient_f32_4, &
      gradient_f64_1, gradient_f64_2, gradient_f64_3, gradient_f64_4
    procedure, private :: read_gradient_array, read_gradient_f32_1, read_gradient_f32_2, read_gradient_f32_3, &
      read_gradient_f32_4, read_gradient_f64_1, read_gradient_f64_2, read_gradient_f64_3, &
      read_gradient_f64_4
  end type

contains

  function named(self, name, what) result(array)
    class(lockstep_parameters), intent(in) :: self
    character(*), intent(in) :: name
    integer, intent(in) :: what
    type(lockstep_array) :: array
    type(c_array) :: found
    integer(c_int) :: status
    select case (what)
    case (of_value)
      status = c_parameters_value(self%handle, trim(name)//c_null_char, found)
    case (of_gradient)
      status = c_parameters_gradient(self%handle, trim(name)//c_null_char, found)
    case default
      status = c_parameters_read_gradient(self%handle, trim(name)//c_null_char, found)
    end select
    array = array_or(status, found, name)
  end function

  subroutine value_array(self, name, array, stat, errmsg)
    class(lockstep_parameters), intent(in) :: self
    character(*), intent(in) :: name
    type(lockstep_array), intent(out) :: array
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    array = named(self, name, of_value)
    call finish_array(array, stat, errmsg)
  end subroutine

  subroutine value_f32_1(self, name, x, stat, errmsg)
    class(lockstep_parameters), intent(in) :: self
    character(*), intent(in) :: name
    real(real32), pointer, intent(out) :: x(:)
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    call point(named(self, name, of_value), x, stat, errmsg)
  end subroutine

  subroutine value_f32_2(self, name, x, stat, errmsg)
    class(lockstep_parameters), intent(in) :: self
    character(*), intent(in) :: name
    real(real32), pointer, intent(out) :: x(:, :)
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    call point(named(self, name, of_value), x, stat, errmsg)
  end subroutine

  subroutine value_f32_3(self, name, x, stat, errmsg)
    class(lockstep_parameters), intent(in) :: self
    character(*), intent(in) :: name
    real(real32), pointer, intent(out) :: x(:, :, :)
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    call point(named(self, name, of_value), x, stat, errmsg)
  end subroutine

  subroutine value_f32_4(self, name, x, stat, errmsg)
    class(lockstep_parameters), intent(in) :: self
    character(*), intent(in) :: name
    real(real32), pointer, intent(out) :: x(:, :, :, :)
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    call point(named(self, name, of_value), x, stat, errmsg)
  end subroutine

  subroutine value_f64_1(self, name, x, stat, errmsg)
    class(lockstep_parameters), intent(in) :: self
    character(*), intent(in) :: name
    real(real64), pointer, intent(out) :: x(:)
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    call point(named(self, name, of_value), x, stat, errmsg)
  end subroutine

  subroutine value_f64_2(self, name, x, stat, errmsg)
    class(lockstep_parameters), intent(in) :: self
    character(*), intent(in) :: name
    real(real64), pointer, intent(out) :: x(:, :)
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    call point(named(self, name, of_value), x, stat, errmsg)
  end subroutine

  subroutine value_f64_3(self, name, x, stat, errmsg)
    class(lockstep_parameters), intent(in) :: self
    character(*), intent(in) :: name
    real(real64), pointer, intent(out) :: x(:, :, :)
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    call point(named(self, name, of_value), x, stat, errmsg)
  end subroutine

  subroutine value_f64_4(self, name, x, stat, errmsg)
    class(lockstep_parameters), intent(in) :: self
    character(*), intent(in) :: name
    real(real64), pointer, intent(out) :: x(:, :, :, :)
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    call point(named(self, name, of_value), x, stat, errmsg)
  end subroutine

  subroutine gradient_array(self, name, array, stat, errmsg)
    class(lockstep_parameters), intent(in) :: self
    character(*), intent(in) :: name
    type(lockstep_array), intent(out) :: array
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    array = named(self, name, of_gradient)
    call finish_array(array, stat, errmsg)
  end subroutine

  subroutine gradient_f32_1(self, name, x, stat, errmsg)
    class(lockstep_parameters), intent(in) :: self
    character(*), intent(in) :: name
    real(real32), pointer, intent(out) :: x(:)
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    call point(named(self, name, of_gradient), x, stat, errmsg)
  end subroutine

  subroutine gradient_f32_2(self, name, x, stat, errmsg)
    class(lockstep_parameters), intent(in) :: self
    character(*), intent(in) :: name
    real(real32), pointer, intent(out) :: x(:, :)
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    call point(named(self, name, of_gradient), x, stat, errmsg)
  end subroutine

  subroutine gradient_f32_3(self, name, x, stat, errmsg)
    class(lockstep_parameters), intent(in) :: self
    character(*), intent(in) :: name
    real(real32), pointer, intent(out) :: x(:, :, :)
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    call point(named(self, name, of_gradient), x, stat, errmsg)
  end subroutine

  subroutine gradient_f32_4(self, name, x, stat, errmsg)
    class(lockstep_parameters), intent(in) :: self
    character(*), intent(in) :: name
    real(real32), pointer, intent(out) :: x(:, :, :, :)
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    call point(named(self, name, of_gradient), x, stat, errmsg)
  end subroutine

  subroutine gradient_f64_1(self, name, x, stat, errmsg)
    class(lockstep_parameters), intent(in) :: self
    character(*), intent(in) :: name
    real(real64), pointer, intent(out) :: x(:)
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    call point(named(self, name, of_gradient), x, stat, errmsg)
  end subroutine

  subroutine gradient_f64_2(self, name, x, stat, errmsg)
    class(lockstep_parameters), intent(in) :: self
    character(*), intent(in) :: name
    real(real64), pointer, intent(out) :: x(:, :)
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    call point(named(self, name, of_gradient), x, stat, errmsg)
  end subroutine

  subroutine gradient_f64_3(self, name, x, stat, errmsg)
    class(lockstep_parameters), intent(in) :: self
    character(*), intent(in) :: name
    real(real64), pointer, intent(out) :: x(:, :, :)
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    call point(named(self, name, of_gradient), x, stat, errmsg)
  end subroutine

  subroutine gradient_f64_4(self, name, x, stat, errmsg)
    class(lockstep_parameters), intent(in) :: self
    character(*), intent(in) :: name
    real(real64), pointer, intent(out) :: x(:, :, :, :)
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    call point(named(self, name, of_gradient), x, stat, errmsg)
  end subroutine

  subroutine read_gradient_array(self, name, array, stat, errmsg)
    class(lockstep_parameters), intent(in) :: self
    character(*), intent(in) :: name
    type(lockstep_array), intent(out) :: array
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    array = named(self, name, of_read_gradient)
    call finish_array(array, stat, errmsg)
  end subroutine

  subroutine read_gradient_f32_1(self, name, x, stat, errmsg)
    class(lockstep_parameters), intent(in) :: self
    character(*), intent(in) :: name
    real(real32), pointer, intent(out) :: x(:)
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    call point(named(self, name, of_read_gradient), x, stat, errmsg)
  end subroutine

  subroutine read_gradient_f32_2(self, name, x, stat, errmsg)
    class(lockstep_parameters), intent(in) :: self
    character(*), intent(in) :: name
    real(real32), pointer, intent(out) :: x(:, :)
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    call point(named(self, name, of_read_gradient), x, stat, errmsg)
  end subroutine

  subroutine read_gradient_f32_3(self, name, x, stat, errmsg)
    class(lockstep_parameters), intent(in) :: self
    character(*), intent(in) :: name
    real(real32), pointer, intent(out) :: x(:, :, :)
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    call point(named(self, name, of_read_gradient), x, stat, errmsg)
  end subroutine

  subroutine read_gradient_f32_4(self, name, x, stat, errmsg)
    class(lockstep_parameters), intent(in) :: self
    character(*), intent(in) :: name
    real(real32), pointer, intent(out) :: x(:, :, :, :)
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    call point(named(self, name, of_read_gradient), x, stat, errmsg)
  end subroutine

  subroutine read_gradient_f64_1(self, name, x, stat, errmsg)
    class(lockstep_parameters), intent(in) :: self
    character(*), intent(in) :: name
    real(real64), pointer, intent(out) :: x(:)
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    call point(named(self, name, of_read_gradient), x, stat, errmsg)
  end subroutine

  subroutine read_gradient_f64_2(self, name, x, stat, errmsg)
    class(lockstep_parameters), intent(in) :: self
    character(*), intent(in) :: name
    real(real64), pointer, intent(out) :: x(:, :)
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    call point(named(self, name, of_read_gradient), x, stat, errmsg)
  end subroutine

  subroutine read_gradient_f64_3(self, name, x, stat, errmsg)
    class(lockstep_parameters), intent(in) :: self
    character(*), intent(in) :: name
    real(real64), pointer, intent(out) :: x(:, :, :)
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    call point(named(self, name, of_read_gradient), x, stat, errmsg)
  end subroutine

  subroutine read_gradient_f64_4(self, name, x, stat, errmsg)
    class(lockstep_parameters), intent(in) :: self
    character(*), intent(in) :: name
    real(real64), pointer, intent(out) :: x(:, :, :, :)
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    call point(named(self, name, of_read_gradient), x, stat, errmsg)
  end subroutine

end module
