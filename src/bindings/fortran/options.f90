!> Options: [option("lr", 1d-3), option("amsgrad", .true.), option("params", "0.*")]. See
!> lockstep.f90.
module lockstep_options
  use lockstep_base
  implicit none
  private
  public :: lockstep_option, option, c_options

  integer, parameter :: max_name = 64, max_text = 512

  !> A name and its value. Both have a fixed length, since compilers lose the memory of allocatable
  !> ones in an array that is written in a call; options() refuses what is longer.
  type :: lockstep_option
    character(max_name) :: name = ''
    real(real64) :: value = 0
    logical :: is_text = .false.
    character(max_text) :: text = ''
    logical :: is_too_long = .false.
  end type

  !> An option by its name and a value: an integer, up to 2**53 and down to its negative; a real; a
  !> logical; or a text. What has several values is given several times.
  interface option
    procedure option_int32, option_int64, option_real32, option_real64, option_logical, option_text
  end interface

  type, bind(c) :: c_option
    type(c_ptr) :: name = c_null_ptr
    real(c_double) :: value = 0
    type(c_ptr) :: text = c_null_ptr
  end type

  integer, parameter :: max_shown = max_name + 40

  !> Options as C takes them, for the time of a call.
  type :: c_options
    private
    type(c_option), allocatable :: entries(:)
    character(kind=c_char), allocatable :: names(:, :), texts(:, :)
  contains
    procedure :: of
  end type

contains

  pure function named(name) result(made)
    character(*), intent(in) :: name
    type(lockstep_option) :: made
    made%name = name
    made%is_too_long = len_trim(name) > max_name
  end function

  pure function option_int32(name, value) result(made)
    character(*), intent(in) :: name
    integer(int32), intent(in) :: value
    type(lockstep_option) :: made
    made = named(name)
    made%value = real(value, real64)
  end function

  pure function option_int64(name, value) result(made)
    character(*), intent(in) :: name
    integer(int64), intent(in) :: value
    type(lockstep_option) :: made
    integer(int64), parameter :: most = 2_int64**53
    made = named(name)
    made%value = real(value, real64)
    ! What is rounded here would pass for another number; this is refused.
    if (value > most .or. value < -most) made%value = sign(2.0_real64**63, made%value)
  end function

  pure function option_real32(name, value) result(made)
    character(*), intent(in) :: name
    real(real32), intent(in) :: value
    type(lockstep_option) :: made
    made = named(name)
    made%value = real(value, real64)
  end function

  pure function option_real64(name, value) result(made)
    character(*), intent(in) :: name
    real(real64), intent(in) :: value
    type(lockstep_option) :: made
    made = named(name)
    made%value = value
  end function

  pure function option_logical(name, value) result(made)
    character(*), intent(in) :: name
    logical, intent(in) :: value
    type(lockstep_option) :: made
    made = named(name)
    if (value) made%value = 1
  end function

  pure function option_text(name, value) result(made)
    character(*), intent(in) :: name, value
    type(lockstep_option) :: made
    made = named(name)
    made%is_text = .true.
    made%text = value
    made%is_too_long = made%is_too_long .or. len_trim(value) > max_text
  end function

  !> The address of options for C, whose memory is this object: null where they are not present.
  function of(self, options) result(address)
    class(c_options), target, intent(inout) :: self
    type(lockstep_option), intent(in), optional :: options(:)
    type(c_ptr) :: address
    integer :: i
    address = c_null_ptr
    if (.not. present(options)) return
    allocate (self%entries(size(options) + 1))
    allocate (self%names(max_shown, size(options)), self%texts(max_text + 1, size(options)))
    do i = 1, size(options)
      associate (one => options(i), entry => self%entries(i))
        ! Under a name that no call knows, so that all ranks are told.
        if (one%is_too_long) then
          call put_text(trim(one%name)//' (longer than lockstep takes)', self%names(:, i))
        else
          call put_text(one%name, self%names(:, i))
        end if
        entry%name = c_loc(self%names(1, i))
        entry%value = one%value
        if (one%is_text) then
          call put_text(one%text, self%texts(:, i))
          entry%text = c_loc(self%texts(1, i))
        end if
      end associate
    end do
    address = c_loc(self%entries)
  end function

end module
