!> A random sample of the snapshots that a simulation shows. See lockstep.f90.
module lockstep_reservoirs
  use lockstep_base
  use lockstep_arrays
  use lockstep_options
  use lockstep_pointers, only: lockstep_array
  use lockstep_c_training
  use lockstep_ranks, only: lockstep_communicator
  implicit none
  private
  public :: lockstep_reservoir

  !> A random sample, over all ranks, of the snapshots that a simulation has shown.
  type, extends(lockstep_object) :: lockstep_reservoir
  contains
    !> call reservoir%create(communicator, capacity, input_extents, target_extents, options,
    !> input_dtype, target_dtype): for `capacity` snapshots over all ranks, of int32 or int64, of
    !> which each is an input and a target of these extents and of LOCKSTEP_F32, unless they are of
    !> another dtype. Collective. Option: seed = 0.
    generic :: create => create_int32, create_int64
    !> call reservoir%add(inputs, targets) shows snapshots of this rank: contiguous arrays of (...,
    !> n), which are copied as far as they are kept. Each that a rank has shown is kept with the
    !> same probability. Not collective.
    generic :: add => add_f32_f32, add_f64_f64, add_f32_f64, &
      add_f64_f32, add_f32_i64, add_f64_i64
    !> call reservoir%draw(samples, inputs, targets): as lockstep_arrays, this rank's part of a
    !> batch of so many snapshots of all that any rank has shown, each as likely as any other; maybe
    !> of extent 0. Collective. The memory is the reservoir's, until the next draw.
    procedure :: draw
    !> Snapshots that this rank keeps, and that it was shown.
    procedure :: size => reservoir_size
    procedure :: seen => reservoir_seen
    procedure, private :: create_int32, create_int64
    procedure, private :: add_f32_f32, add_f64_f64, add_f32_f64, &
      add_f64_f32, add_f32_i64, add_f64_i64
  end type

contains

  subroutine create_int32(self, communicator, capacity, input_extents, target_extents, options, &
                          input_dtype, target_dtype, stat, errmsg)
    class(lockstep_reservoir), intent(inout) :: self
    type(lockstep_communicator), intent(in) :: communicator
    integer(int32), intent(in) :: capacity
    integer, intent(in) :: input_extents(:), target_extents(:)
    type(lockstep_option), intent(in), optional :: options(:)
    integer, intent(in), optional :: input_dtype, target_dtype
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    call create_int64(self, communicator, int(capacity, int64), input_extents, target_extents, options, &
                      input_dtype, target_dtype, stat, errmsg)
  end subroutine

  subroutine create_int64(self, communicator, capacity, input_extents, target_extents, options, &
                          input_dtype, target_dtype, stat, errmsg)
    class(lockstep_reservoir), intent(inout) :: self
    type(lockstep_communicator), intent(in) :: communicator
    integer(int64), intent(in) :: capacity
    integer, intent(in) :: input_extents(:), target_extents(:)
    type(lockstep_option), intent(in), optional :: options(:)
    integer, intent(in), optional :: input_dtype, target_dtype
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    type(c_options) :: list
    type(c_array) :: input, target
    type(c_ptr) :: made
    integer(c_int) :: status
    input = c_prototype(LOCKSTEP_F32, int(input_extents, int64))
    if (present(input_dtype)) input%dtype = input_dtype
    target = c_prototype(LOCKSTEP_F32, int(target_extents, int64))
    if (present(target_dtype)) target%dtype = target_dtype
    status = c_reservoir_create(communicator%handle, capacity, input, target, list%of(options), made)
    call finish_create(self, made, status, stat, errmsg)
  end subroutine

  subroutine add_f32_f32(self, inputs, targets, stat, errmsg)
    class(lockstep_reservoir), intent(in) :: self
    real(real32), intent(in), target :: inputs(..), targets(..)
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    call finish(c_reservoir_add(self%handle, described(inputs), described(targets)), stat, errmsg)
  end subroutine

  subroutine add_f64_f64(self, inputs, targets, stat, errmsg)
    class(lockstep_reservoir), intent(in) :: self
    real(real64), intent(in), target :: inputs(..), targets(..)
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    call finish(c_reservoir_add(self%handle, described(inputs), described(targets)), stat, errmsg)
  end subroutine

  subroutine add_f32_f64(self, inputs, targets, stat, errmsg)
    class(lockstep_reservoir), intent(in) :: self
    real(real32), intent(in), target :: inputs(..)
    real(real64), intent(in), target :: targets(..)
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    call finish(c_reservoir_add(self%handle, described(inputs), described(targets)), stat, errmsg)
  end subroutine

  subroutine add_f64_f32(self, inputs, targets, stat, errmsg)
    class(lockstep_reservoir), intent(in) :: self
    real(real64), intent(in), target :: inputs(..)
    real(real32), intent(in), target :: targets(..)
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    call finish(c_reservoir_add(self%handle, described(inputs), described(targets)), stat, errmsg)
  end subroutine

  subroutine add_f32_i64(self, inputs, targets, stat, errmsg)
    class(lockstep_reservoir), intent(in) :: self
    real(real32), intent(in), target :: inputs(..)
    integer(int64), intent(in), target :: targets(..)
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    call finish(c_reservoir_add(self%handle, described(inputs), described(targets)), stat, errmsg)
  end subroutine

  subroutine add_f64_i64(self, inputs, targets, stat, errmsg)
    class(lockstep_reservoir), intent(in) :: self
    real(real64), intent(in), target :: inputs(..)
    integer(int64), intent(in), target :: targets(..)
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    call finish(c_reservoir_add(self%handle, described(inputs), described(targets)), stat, errmsg)
  end subroutine

  subroutine draw(self, samples, inputs, targets, stat, errmsg)
    class(lockstep_reservoir), intent(in) :: self
    integer, intent(in) :: samples
    type(lockstep_array), intent(inout) :: inputs, targets
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    call finish(c_reservoir_draw(self%handle, int(samples, c_int64_t), inputs%c, targets%c), stat, errmsg)
  end subroutine

  subroutine reservoir_size(self, size, stat, errmsg)
    class(lockstep_reservoir), intent(in) :: self
    integer(int64), intent(inout) :: size
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    call finish(c_reservoir_size(self%handle, size), stat, errmsg)
  end subroutine

  subroutine reservoir_seen(self, seen, stat, errmsg)
    class(lockstep_reservoir), intent(in) :: self
    integer(int64), intent(inout) :: seen
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    call finish(c_reservoir_seen(self%handle, seen), stat, errmsg)
  end subroutine

end module
