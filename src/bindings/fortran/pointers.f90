!> Pointers to arrays of lockstep. See lockstep.f90.
module lockstep_pointers
  use lockstep_base
  use lockstep_arrays
  implicit none
  private
  public :: lockstep_array, array_or, finish_array, point

  integer, parameter :: max_name = 64

  !> An array of lockstep's, whose kind and rank the caller may ask for.
  type :: lockstep_array
    type(c_array) :: c
    integer(c_int), private :: status = LOCKSTEP_OK ! of the call that was to give it
    character(max_name), private :: name = 'array' ! for errors
  contains
    !> LOCKSTEP_F32, LOCKSTEP_F64, LOCKSTEP_I64 or LOCKSTEP_U8.
    procedure :: dtype => array_dtype
    procedure :: rank => array_rank
    !> As of a Fortran array: that of the samples is the last.
    procedure :: extents => array_extents
    !> Where its numbers lie.
    procedure :: address => array_address
    !> call array%get(x) makes a pointer of this kind and rank a name of the array: real(real32),
    !> real(real64), integer(int64) or integer(int8), of rank 1 to 4. LOCKSTEP_ERROR_DTYPE or
    !> LOCKSTEP_ERROR_SHAPE for another, which is undefined then.
    generic :: get => get_f32_1, get_f32_2, get_f32_3, get_f32_4, get_f64_1, get_f64_2, get_f64_3, &
      get_f64_4, get_i64_1, get_i64_2, get_i64_3, get_i64_4, get_u8_1, get_u8_2, get_u8_3, get_u8_4
    procedure, private :: get_f32_1, get_f32_2, get_f32_3, get_f32_4, get_f64_1, get_f64_2, get_f64_3, &
      get_f64_4, get_i64_1, get_i64_2, get_i64_3, get_i64_4, get_u8_1, get_u8_2, get_u8_3, get_u8_4
  end type

  interface point
    procedure get_f32_1, get_f32_2, get_f32_3, get_f32_4, get_f64_1, get_f64_2, get_f64_3, get_f64_4, &
      get_i64_1, get_i64_2, get_i64_3, get_i64_4, get_u8_1, get_u8_2, get_u8_3, get_u8_4
  end interface

contains

  !> The array that a call has given, or its status, which point() tells.
  function array_or(status, array, name) result(made)
    integer(c_int), intent(in) :: status
    type(c_array), intent(in) :: array
    character(*), intent(in) :: name
    type(lockstep_array) :: made
    made%c = array
    made%status = status
    made%name = name
  end function

  !> Ends a call that gives an array as it is.
  subroutine finish_array(array, stat, errmsg)
    type(lockstep_array), intent(in) :: array
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    call finish(array%status, stat, errmsg)
  end subroutine

  function dtype_name(dtype) result(name)
    integer, intent(in) :: dtype
    character(:), allocatable :: name
    character(15), parameter :: names(0:3) = &
      [character(15) :: 'real(real32)', 'real(real64)', 'integer(int64)', 'integer(int8)']
    name = trim(names(dtype))
  end function

  !> Whether a pointer of this dtype and rank can be a name of the array, and the end of the call.
  function fits(self, dtype, rank, stat, errmsg)
    class(lockstep_array), intent(in) :: self
    integer, intent(in) :: dtype, rank
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    logical :: fits
    character(200) :: found
    fits = .false.
    if (self%status /= LOCKSTEP_OK) then
      call finish(self%status, stat, errmsg)
    else if (self%c%dtype == dtype .and. self%c%rank == rank) then
      fits = .true.
      call finish(LOCKSTEP_OK, stat, errmsg)
    else
      write (found, '(3a,i0,3a,i0)') ': expected ', dtype_name(int(self%c%dtype)), ' of rank ', self%c%rank, &
        ', found a pointer to ', dtype_name(dtype), ' of rank ', rank
      call fail(merge(LOCKSTEP_ERROR_SHAPE, LOCKSTEP_ERROR_DTYPE, self%c%dtype == dtype), &
                trim(self%name)//trim(found), stat, errmsg)
    end if
  end function

  !> Where numbers lie, or something where there are none, so that a pointer to them is associated.
  function data_of(self) result(data)
    class(lockstep_array), intent(in) :: self
    type(c_ptr) :: data
    integer(int64), target, save :: nothing = 0
    data = self%c%data
    if (.not. c_associated(data)) data = c_loc(nothing)
  end function

  pure function array_dtype(self) result(dtype)
    class(lockstep_array), intent(in) :: self
    integer :: dtype
    dtype = self%c%dtype
  end function

  pure function array_rank(self) result(rank)
    class(lockstep_array), intent(in) :: self
    integer :: rank
    rank = self%c%rank
  end function

  pure function array_extents(self) result(extents)
    class(lockstep_array), intent(in) :: self
    integer(int64) :: extents(self%c%rank)
    extents = self%c%extents(self%c%rank:1:-1)
  end function

  pure function array_address(self) result(address)
    class(lockstep_array), intent(in) :: self
    type(c_ptr) :: address
    address = self%c%data
  end function

  subroutine get_f32_1(self, x, stat, errmsg)
    class(lockstep_array), intent(in) :: self
    real(real32), pointer, intent(out) :: x(:)
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    if (.not. fits(self, int(LOCKSTEP_F32), 1, stat, errmsg)) return
    call c_f_pointer(data_of(self), x, self%c%extents(1:1:-1))
  end subroutine

  subroutine get_f32_2(self, x, stat, errmsg)
    class(lockstep_array), intent(in) :: self
    real(real32), pointer, intent(out) :: x(:, :)
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    if (.not. fits(self, int(LOCKSTEP_F32), 2, stat, errmsg)) return
    call c_f_pointer(data_of(self), x, self%c%extents(2:1:-1))
  end subroutine

  subroutine get_f32_3(self, x, stat, errmsg)
    class(lockstep_array), intent(in) :: self
    real(real32), pointer, intent(out) :: x(:, :, :)
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    if (.not. fits(self, int(LOCKSTEP_F32), 3, stat, errmsg)) return
    call c_f_pointer(data_of(self), x, self%c%extents(3:1:-1))
  end subroutine

  subroutine get_f32_4(self, x, stat, errmsg)
    class(lockstep_array), intent(in) :: self
    real(real32), pointer, intent(out) :: x(:, :, :, :)
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    if (.not. fits(self, int(LOCKSTEP_F32), 4, stat, errmsg)) return
    call c_f_pointer(data_of(self), x, self%c%extents(4:1:-1))
  end subroutine

  subroutine get_f64_1(self, x, stat, errmsg)
    class(lockstep_array), intent(in) :: self
    real(real64), pointer, intent(out) :: x(:)
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    if (.not. fits(self, int(LOCKSTEP_F64), 1, stat, errmsg)) return
    call c_f_pointer(data_of(self), x, self%c%extents(1:1:-1))
  end subroutine

  subroutine get_f64_2(self, x, stat, errmsg)
    class(lockstep_array), intent(in) :: self
    real(real64), pointer, intent(out) :: x(:, :)
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    if (.not. fits(self, int(LOCKSTEP_F64), 2, stat, errmsg)) return
    call c_f_pointer(data_of(self), x, self%c%extents(2:1:-1))
  end subroutine

  subroutine get_f64_3(self, x, stat, errmsg)
    class(lockstep_array), intent(in) :: self
    real(real64), pointer, intent(out) :: x(:, :, :)
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    if (.not. fits(self, int(LOCKSTEP_F64), 3, stat, errmsg)) return
    call c_f_pointer(data_of(self), x, self%c%extents(3:1:-1))
  end subroutine

  subroutine get_f64_4(self, x, stat, errmsg)
    class(lockstep_array), intent(in) :: self
    real(real64), pointer, intent(out) :: x(:, :, :, :)
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    if (.not. fits(self, int(LOCKSTEP_F64), 4, stat, errmsg)) return
    call c_f_pointer(data_of(self), x, self%c%extents(4:1:-1))
  end subroutine

  subroutine get_i64_1(self, x, stat, errmsg)
    class(lockstep_array), intent(in) :: self
    integer(int64), pointer, intent(out) :: x(:)
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    if (.not. fits(self, int(LOCKSTEP_I64), 1, stat, errmsg)) return
    call c_f_pointer(data_of(self), x, self%c%extents(1:1:-1))
  end subroutine

  subroutine get_i64_2(self, x, stat, errmsg)
    class(lockstep_array), intent(in) :: self
    integer(int64), pointer, intent(out) :: x(:, :)
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    if (.not. fits(self, int(LOCKSTEP_I64), 2, stat, errmsg)) return
    call c_f_pointer(data_of(self), x, self%c%extents(2:1:-1))
  end subroutine

  subroutine get_i64_3(self, x, stat, errmsg)
    class(lockstep_array), intent(in) :: self
    integer(int64), pointer, intent(out) :: x(:, :, :)
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    if (.not. fits(self, int(LOCKSTEP_I64), 3, stat, errmsg)) return
    call c_f_pointer(data_of(self), x, self%c%extents(3:1:-1))
  end subroutine

  subroutine get_i64_4(self, x, stat, errmsg)
    class(lockstep_array), intent(in) :: self
    integer(int64), pointer, intent(out) :: x(:, :, :, :)
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    if (.not. fits(self, int(LOCKSTEP_I64), 4, stat, errmsg)) return
    call c_f_pointer(data_of(self), x, self%c%extents(4:1:-1))
  end subroutine

  subroutine get_u8_1(self, x, stat, errmsg)
    class(lockstep_array), intent(in) :: self
    integer(int8), pointer, intent(out) :: x(:)
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    if (.not. fits(self, int(LOCKSTEP_U8), 1, stat, errmsg)) return
    call c_f_pointer(data_of(self), x, self%c%extents(1:1:-1))
  end subroutine

  subroutine get_u8_2(self, x, stat, errmsg)
    class(lockstep_array), intent(in) :: self
    integer(int8), pointer, intent(out) :: x(:, :)
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    if (.not. fits(self, int(LOCKSTEP_U8), 2, stat, errmsg)) return
    call c_f_pointer(data_of(self), x, self%c%extents(2:1:-1))
  end subroutine

  subroutine get_u8_3(self, x, stat, errmsg)
    class(lockstep_array), intent(in) :: self
    integer(int8), pointer, intent(out) :: x(:, :, :)
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    if (.not. fits(self, int(LOCKSTEP_U8), 3, stat, errmsg)) return
    call c_f_pointer(data_of(self), x, self%c%extents(3:1:-1))
  end subroutine

  subroutine get_u8_4(self, x, stat, errmsg)
    class(lockstep_array), intent(in) :: self
    integer(int8), pointer, intent(out) :: x(:, :, :, :)
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    if (.not. fits(self, int(LOCKSTEP_U8), 4, stat, errmsg)) return
    call c_f_pointer(data_of(self), x, self%c%extents(4:1:-1))
  end subroutine

end module
