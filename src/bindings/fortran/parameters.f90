!> Parameters by name. See lockstep.f90.
module lockstep_parameter_lists
  use lockstep_base
  use lockstep_arrays
  use lockstep_c_parameters
  use lockstep_pointers
  implicit none
  private
  public :: lockstep_parameters

  integer, parameter :: of_value = 1, of_gradient = 2, of_read_gradient = 3

  !> A list of named parameters, in order.
  type, extends(lockstep_object) :: lockstep_parameters
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
    !> call parameters%value(name, x): `x` is a pointer, of the parameter's kind and rank (1 to 4),
    !> to the value, to read and write in place. Its memory is there as long as the parameter, but
    !> moves when a replica or reducer with the parameter is created or ends; a borrowed one stays.
    generic :: value => value_f32_1, value_f32_2, value_f32_3, value_f32_4, value_f64_1, value_f64_2, &
      value_f64_3, value_f64_4
    !> The same for the gradient, to write: zeros where there was none. Its memory is this rank's
    !> alone, and moves as the value's does.
    generic :: gradient => gradient_f32_1, gradient_f32_2, gradient_f32_3, gradient_f32_4, &
      gradient_f64_1, gradient_f64_2, gradient_f64_3, gradient_f64_4
    !> The same for the gradient, only to read: after a reduction the memory that the ranks of a
    !> node share, without a copy. LOCKSTEP_ERROR_STATE where there is none.
    generic :: read_gradient => read_gradient_f32_1, read_gradient_f32_2, read_gradient_f32_3, &
      read_gradient_f32_4, read_gradient_f64_1, read_gradient_f64_2, read_gradient_f64_3, &
      read_gradient_f64_4
    procedure :: has_gradient
    !> Forgets all gradients.
    procedure :: zero_gradients
    !> Whether a parameter is trained, alike on all ranks.
    procedure :: set_requires_gradient
    procedure, private :: borrow_f32, borrow_f64, add_f32, add_f64
    procedure, private :: value_f32_1, value_f32_2, value_f32_3, value_f32_4, value_f64_1, value_f64_2, &
      value_f64_3, value_f64_4
    procedure, private :: gradient_f32_1, gradient_f32_2, gradient_f32_3, gradient_f32_4, &
      gradient_f64_1, gradient_f64_2, gradient_f64_3, gradient_f64_4
    procedure, private :: read_gradient_f32_1, read_gradient_f32_2, read_gradient_f32_3, &
      read_gradient_f32_4, read_gradient_f64_1, read_gradient_f64_2, read_gradient_f64_3, &
      read_gradient_f64_4
  end type

contains

  subroutine create_parameters(self, stat, errmsg)
    class(lockstep_parameters), intent(inout) :: self
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    type(c_ptr) :: made
    integer(c_int) :: status
    status = c_parameters_create(made)
    call finish_create(self, made, status, stat, errmsg)
  end subroutine

  subroutine borrow_f32(self, name, array, stat, errmsg)
    class(lockstep_parameters), intent(in) :: self
    character(*), intent(in) :: name
    real(real32), pointer, intent(in) :: array(..)
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    call finish(c_parameters_borrow(self%handle, trim(name)//c_null_char, kept(array)), stat, errmsg)
  end subroutine

  subroutine borrow_f64(self, name, array, stat, errmsg)
    class(lockstep_parameters), intent(in) :: self
    character(*), intent(in) :: name
    real(real64), pointer, intent(in) :: array(..)
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    call finish(c_parameters_borrow(self%handle, trim(name)//c_null_char, kept(array)), stat, errmsg)
  end subroutine

  subroutine add_f32(self, name, array, stat, errmsg)
    class(lockstep_parameters), intent(in) :: self
    character(*), intent(in) :: name
    real(real32), intent(in), target :: array(..)
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    call finish(c_parameters_add(self%handle, trim(name)//c_null_char, described(array)), stat, errmsg)
  end subroutine

  subroutine add_f64(self, name, array, stat, errmsg)
    class(lockstep_parameters), intent(in) :: self
    character(*), intent(in) :: name
    real(real64), intent(in), target :: array(..)
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    call finish(c_parameters_add(self%handle, trim(name)//c_null_char, described(array)), stat, errmsg)
  end subroutine

  subroutine count_parameters(self, count, stat, errmsg)
    class(lockstep_parameters), intent(in) :: self
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
    class(lockstep_parameters), intent(in) :: self
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

  subroutine has_gradient(self, name, has, stat, errmsg)
    class(lockstep_parameters), intent(in) :: self
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
    class(lockstep_parameters), intent(in) :: self
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    call finish(c_parameters_zero_gradients(self%handle), stat, errmsg)
  end subroutine

  subroutine set_requires_gradient(self, name, requires_gradient, stat, errmsg)
    class(lockstep_parameters), intent(in) :: self
    character(*), intent(in) :: name
    logical, intent(in) :: requires_gradient
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    call finish(c_parameters_set_requires_gradient(self%handle, trim(name)//c_null_char, &
                                                   merge(1_c_int, 0_c_int, requires_gradient)), stat, errmsg)
  end subroutine

end module
