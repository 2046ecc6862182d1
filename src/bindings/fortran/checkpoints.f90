!> Checkpoints: one file for any number of ranks. See lockstep.f90.
module lockstep_checkpoints
  use lockstep_base
  use lockstep_arrays
  use lockstep_options
  use lockstep_c_checkpoint
  use lockstep_ranks, only: lockstep_communicator
  implicit none
  private
  public :: lockstep_items, lockstep_checkpoint_save, lockstep_checkpoint_load

  !> What is saved and loaded, each item under its name. Arrays and numbers stay the caller's, as
  !> targets or pointers, and must outlive the list and what is made of it.
  type, extends(lockstep_object) :: lockstep_items
  contains
    !> An empty list.
    procedure :: create => create_items
    !> call items%add(name, object): a model, optimizer, scheduler, reducer or reservoir.
    procedure :: add => add_object
    !> call items%add_array(item, name, array): an array that all ranks have alike, contiguous, in
    !> an item of arrays such as "fields".
    generic :: add_array => add_array_f32, add_array_f64, add_array_i64, add_array_u8
    !> call items%add_range(item, name, array, extents, first): this rank's range of an array that
    !> ranks have cut, which has these extents as a whole: its elements from number `first`, from 1,
    !> on, in the order that they lie in memory, and as many as the contiguous array has, of
    !> whatever rank. A load gives each rank its range, however that was cut before. `extents` and
    !> `first` are of int64.
    generic :: add_range => add_range_f32, add_range_f64, add_range_i64, add_range_u8
    !> call items%add_number(item, name, number): a number, of int64 or real64, that all ranks have
    !> alike, in an item of numbers such as "progress".
    generic :: add_number => add_integer, add_real
    procedure, private :: add_array_f32, add_array_f64, add_array_i64, add_array_u8
    procedure, private :: add_range_f32, add_range_f64, add_range_i64, add_range_u8
    procedure, private :: add_integer, add_real
  end type

contains

  subroutine create_items(self, stat, errmsg)
    class(lockstep_items), intent(inout) :: self
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    type(c_ptr) :: made
    integer(c_int) :: status
    status = c_items_create(made)
    call finish_create(self, made, status, stat, errmsg)
  end subroutine

  subroutine add_object(self, name, object, stat, errmsg)
    class(lockstep_items), intent(in) :: self
    character(*), intent(in) :: name
    class(lockstep_object), intent(in) :: object
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    call finish(c_items_add(self%handle, trim(name)//c_null_char, object%handle), stat, errmsg)
  end subroutine

  subroutine add_array_f32(self, item, name, array, stat, errmsg)
    class(lockstep_items), intent(in) :: self
    character(*), intent(in) :: item, name
    real(real32), pointer, intent(in) :: array(..)
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    call finish(c_items_add_array(self%handle, trim(item)//c_null_char, trim(name)//c_null_char, kept(array)), &
                stat, errmsg)
  end subroutine

  subroutine add_array_f64(self, item, name, array, stat, errmsg)
    class(lockstep_items), intent(in) :: self
    character(*), intent(in) :: item, name
    real(real64), pointer, intent(in) :: array(..)
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    call finish(c_items_add_array(self%handle, trim(item)//c_null_char, trim(name)//c_null_char, kept(array)), &
                stat, errmsg)
  end subroutine

  subroutine add_array_i64(self, item, name, array, stat, errmsg)
    class(lockstep_items), intent(in) :: self
    character(*), intent(in) :: item, name
    integer(int64), pointer, intent(in) :: array(..)
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    call finish(c_items_add_array(self%handle, trim(item)//c_null_char, trim(name)//c_null_char, kept(array)), &
                stat, errmsg)
  end subroutine

  subroutine add_array_u8(self, item, name, array, stat, errmsg)
    class(lockstep_items), intent(in) :: self
    character(*), intent(in) :: item, name
    integer(int8), pointer, intent(in) :: array(..)
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    call finish(c_items_add_array(self%handle, trim(item)//c_null_char, trim(name)//c_null_char, kept(array)), &
                stat, errmsg)
  end subroutine

  subroutine add_range(self, item, name, array, extents, first, stat, errmsg)
    class(lockstep_items), intent(in) :: self
    character(*), intent(in) :: item, name
    type(c_array), intent(in) :: array
    integer(int64), intent(in) :: extents(:), first
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    type(c_array) :: whole
    integer(c_int64_t) :: count
    whole = c_prototype(array%dtype, extents)
    whole%data = array%data
    if (array%rank < 0) whole%rank = array%rank ! the mark of one that is not contiguous
    count = product(array%extents(:max(array%rank, 0)))
    call finish(c_items_add_range(self%handle, trim(item)//c_null_char, trim(name)//c_null_char, whole, &
                                  first - 1, count), stat, errmsg)
  end subroutine

  subroutine add_range_f32(self, item, name, array, extents, first, stat, errmsg)
    class(lockstep_items), intent(in) :: self
    character(*), intent(in) :: item, name
    real(real32), pointer, intent(in) :: array(..)
    integer(int64), intent(in) :: extents(:), first
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    call add_range(self, item, name, kept(array), extents, first, stat, errmsg)
  end subroutine

  subroutine add_range_f64(self, item, name, array, extents, first, stat, errmsg)
    class(lockstep_items), intent(in) :: self
    character(*), intent(in) :: item, name
    real(real64), pointer, intent(in) :: array(..)
    integer(int64), intent(in) :: extents(:), first
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    call add_range(self, item, name, kept(array), extents, first, stat, errmsg)
  end subroutine

  subroutine add_range_i64(self, item, name, array, extents, first, stat, errmsg)
    class(lockstep_items), intent(in) :: self
    character(*), intent(in) :: item, name
    integer(int64), pointer, intent(in) :: array(..)
    integer(int64), intent(in) :: extents(:), first
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    call add_range(self, item, name, kept(array), extents, first, stat, errmsg)
  end subroutine

  subroutine add_range_u8(self, item, name, array, extents, first, stat, errmsg)
    class(lockstep_items), intent(in) :: self
    character(*), intent(in) :: item, name
    integer(int8), pointer, intent(in) :: array(..)
    integer(int64), intent(in) :: extents(:), first
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    call add_range(self, item, name, kept(array), extents, first, stat, errmsg)
  end subroutine

  subroutine add_integer(self, item, name, number, stat, errmsg)
    class(lockstep_items), intent(in) :: self
    character(*), intent(in) :: item, name
    integer(int64), pointer, intent(in) :: number
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    type(c_ptr) :: address
    address = c_null_ptr
    if (associated(number)) address = c_loc(number)
    call finish(c_items_add_integer(self%handle, trim(item)//c_null_char, trim(name)//c_null_char, address), &
                stat, errmsg)
  end subroutine

  subroutine add_real(self, item, name, number, stat, errmsg)
    class(lockstep_items), intent(in) :: self
    character(*), intent(in) :: item, name
    real(real64), pointer, intent(in) :: number
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    type(c_ptr) :: address
    address = c_null_ptr
    if (associated(number)) address = c_loc(number)
    call finish(c_items_add_real(self%handle, trim(item)//c_null_char, trim(name)//c_null_char, address), &
                stat, errmsg)
  end subroutine

  !> Writes all items to a file, after all ranks have been compared. Collective. At any time there
  !> is the file of before, or the complete new one.
  subroutine lockstep_checkpoint_save(path, communicator, items, stat, errmsg)
    character(*), intent(in) :: path
    type(lockstep_communicator), intent(in) :: communicator
    type(lockstep_items), intent(in) :: items
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    call finish(c_checkpoint_save(trim(path)//c_null_char, communicator%handle, items%handle), stat, errmsg)
  end subroutine

  !> Loads all items, on whatever number of ranks has saved them; all of the file is checked before
  !> anything changes. Collective. Options:
  !>   mode           strict | subset | partial: the file has the same names | may have more items | may have
  !>                  and lack any
  !>   prefix         a text: loads only what has names in items that begin with it
  !>   convert_dtype  .false.: converts numbers of another floating-point type
  subroutine lockstep_checkpoint_load(path, communicator, items, options, stat, errmsg)
    character(*), intent(in) :: path
    type(lockstep_communicator), intent(in) :: communicator
    type(lockstep_items), intent(in) :: items
    type(lockstep_option), intent(in), optional :: options(:)
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    type(c_options) :: list
    call finish(c_checkpoint_load(trim(path)//c_null_char, communicator%handle, items%handle, &
                                  list%of(options)), stat, errmsg)
  end subroutine

end module
