!> What C is told of the caller's arrays. See lockstep.f90.
module lockstep_arrays
  use lockstep_base
  implicit none
  private
  public :: c_array, c_prototype, described, kept, c_max_rank

  integer, parameter :: c_max_rank = 8
  !> LOCKSTEP_NOT_CONTIGUOUS of C, in the place of a rank, which C refuses, on all ranks of a collective
  !> call.
  integer(c_int), parameter :: not_contiguous = -1000

  type, bind(c) :: c_array
    integer(c_int) :: dtype = 0
    integer(c_int) :: rank = 0
    integer(c_int64_t) :: extents(c_max_rank) = 0
    type(c_ptr) :: data = c_null_ptr
  end type

  !> What C is told of an array for the time of a call.
  interface described
    procedure described_f32, described_f64, described_i64, described_u8
  end interface

  !> The same of an array that is kept: the compiler sees to it that it is a target or pointer, and
  !> no expression.
  interface kept
    procedure kept_f32, kept_f64, kept_i64, kept_u8
  end interface

contains

  function c_array_of(dtype, extents, is_contiguous, data) result(made)
    integer(c_int), intent(in) :: dtype
    integer(int64), intent(in) :: extents(:)
    logical, intent(in) :: is_contiguous
    type(c_ptr), intent(in) :: data
    type(c_array) :: made
    made%dtype = dtype
    made%rank = size(extents)
    if (made%rank <= c_max_rank) made%extents(:size(extents)) = extents(size(extents):1:-1)
    if (.not. is_contiguous) made%rank = not_contiguous
    if (all(extents /= 0)) made%data = data
  end function

  !> An array of a dtype and of extents as Fortran's, without data.
  function c_prototype(dtype, extents) result(made)
    integer(c_int), intent(in) :: dtype
    integer(int64), intent(in) :: extents(:)
    type(c_array) :: made
    made = c_array_of(dtype, extents, .true., c_null_ptr)
  end function

  !> gfortran's shape of an argument that is empty may be negative.
  pure function extents_of(shape) result(extents)
    integer(int64), intent(in) :: shape(:)
    integer(int64) :: extents(size(shape))
    extents = max(shape, 0_int64)
  end function

  function described_f32(x) result(made)
    real(real32), intent(in), target :: x(..)
    type(c_array) :: made
    made = c_array_of(LOCKSTEP_F32, extents_of(shape(x, int64)), is_contiguous(x), c_loc(x))
  end function

  function described_f64(x) result(made)
    real(real64), intent(in), target :: x(..)
    type(c_array) :: made
    made = c_array_of(LOCKSTEP_F64, extents_of(shape(x, int64)), is_contiguous(x), c_loc(x))
  end function

  function described_i64(x) result(made)
    integer(int64), intent(in), target :: x(..)
    type(c_array) :: made
    made = c_array_of(LOCKSTEP_I64, extents_of(shape(x, int64)), is_contiguous(x), c_loc(x))
  end function

  function described_u8(x) result(made)
    integer(int8), intent(in), target :: x(..)
    type(c_array) :: made
    made = c_array_of(LOCKSTEP_U8, extents_of(shape(x, int64)), is_contiguous(x), c_loc(x))
  end function

  ! Of a pointer without a target C is told a scalar without memory, which it refuses.

  function kept_f32(x) result(made)
    real(real32), pointer, intent(in) :: x(..)
    type(c_array) :: made
    made%dtype = LOCKSTEP_F32
    if (associated(x)) made = described(x)
  end function

  function kept_f64(x) result(made)
    real(real64), pointer, intent(in) :: x(..)
    type(c_array) :: made
    made%dtype = LOCKSTEP_F64
    if (associated(x)) made = described(x)
  end function

  function kept_i64(x) result(made)
    integer(int64), pointer, intent(in) :: x(..)
    type(c_array) :: made
    made%dtype = LOCKSTEP_I64
    if (associated(x)) made = described(x)
  end function

  function kept_u8(x) result(made)
    integer(int8), pointer, intent(in) :: x(..)
    type(c_array) :: made
    made%dtype = LOCKSTEP_U8
    if (associated(x)) made = described(x)
  end function

end module
