!> The checkpoints of a run in a folder. See lockstep.f90.
module lockstep_managers
  use lockstep_base
  use lockstep_options
  use lockstep_c_checkpoint
  use lockstep_checkpoints, only: lockstep_items
  use lockstep_ranks, only: lockstep_communicator
  implicit none
  private
  public :: lockstep_manager

  !> Steps are of int32 or int64.
  type, extends(lockstep_object) :: lockstep_manager
  contains
    !> call manager%create(folder, communicator, items, options) manages a folder. Collective, as
    !> all calls below are. Options:
    !>   every_steps    0: saves at each multiple of it
    !>   every_minutes  0: saves when so long ago
    !>   keep_last      3: how many of the newest stay
    !>   keep_best      0: how many of those with the best metric stay as well
    !>   best           lowest | highest
    !>   signal         the number of one that means: save once and stop; may be given several times
    !>   poll_every     1: steps between agreements on time and signals
    !>   background     .false.: whether a step returns while its file is being written
    !>   when_busy      wait | refuse: what a step that is to save does meanwhile
    !>   lock           .true.: whether other jobs are kept out of the folder
    procedure :: create => create_manager
    !> call manager%load_latest(step) loads the newest sound checkpoint, and tells its step; -1
    !> where there is none.
    generic :: load_latest => load_latest_int32, load_latest_int64
    !> The same for the one with the best metric.
    generic :: load_best => load_best_int32, load_best_int64
    !> call manager%step(step, metric, saved) after each step, with the number of those that are
    !> done: saves where that is due.
    generic :: step => step_int32, step_int64
    !> call manager%save(step, metric) saves now.
    generic :: save => save_int32, save_int64
    !> Returns when all is on disk.
    procedure :: wait => wait_for_disk
    !> Whether a signal has come to any rank, and a step has saved for it. Not collective.
    procedure :: stop_requested
    procedure, private :: load_latest_int32, load_latest_int64, load_best_int32, load_best_int64
    procedure, private :: step_int32, step_int64, save_int32, save_int64
  end type

contains

  subroutine create_manager(self, folder, communicator, items, options, stat, errmsg)
    class(lockstep_manager), intent(inout) :: self
    character(*), intent(in) :: folder
    type(lockstep_communicator), intent(in) :: communicator
    type(lockstep_items), intent(in) :: items
    type(lockstep_option), intent(in), optional :: options(:)
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    type(c_options) :: list
    type(c_ptr) :: made
    integer(c_int) :: status
    status = c_manager_create(trim(folder)//c_null_char, communicator%handle, items%handle, &
                              list%of(options), made)
    call finish_create(self, made, status, stat, errmsg)
  end subroutine

  subroutine load_latest_int32(self, step, stat, errmsg)
    class(lockstep_manager), intent(in) :: self
    integer(int32), intent(inout) :: step
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    integer(c_int64_t) :: found
    integer(c_int) :: status
    status = c_manager_load_latest(self%handle, found)
    if (status == LOCKSTEP_OK) step = int(found, int32)
    call finish(status, stat, errmsg)
  end subroutine

  subroutine load_latest_int64(self, step, stat, errmsg)
    class(lockstep_manager), intent(in) :: self
    integer(int64), intent(inout) :: step
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    call finish(c_manager_load_latest(self%handle, step), stat, errmsg)
  end subroutine

  subroutine load_best_int32(self, step, stat, errmsg)
    class(lockstep_manager), intent(in) :: self
    integer(int32), intent(inout) :: step
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    integer(c_int64_t) :: found
    integer(c_int) :: status
    status = c_manager_load_best(self%handle, found)
    if (status == LOCKSTEP_OK) step = int(found, int32)
    call finish(status, stat, errmsg)
  end subroutine

  subroutine load_best_int64(self, step, stat, errmsg)
    class(lockstep_manager), intent(in) :: self
    integer(int64), intent(inout) :: step
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    call finish(c_manager_load_best(self%handle, step), stat, errmsg)
  end subroutine

  subroutine step_int32(self, step, metric, saved, stat, errmsg)
    class(lockstep_manager), intent(in) :: self
    integer(int32), intent(in) :: step
    real(real64), intent(in), optional :: metric
    logical, intent(inout), optional :: saved
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    call step_int64(self, int(step, int64), metric, saved, stat, errmsg)
  end subroutine

  subroutine step_int64(self, step, metric, saved, stat, errmsg)
    class(lockstep_manager), intent(in) :: self
    integer(int64), intent(in) :: step
    real(real64), intent(in), optional :: metric
    logical, intent(inout), optional :: saved
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    integer(c_int) :: status, has_saved
    status = c_manager_step(self%handle, step, metric, has_saved)
    if (status == LOCKSTEP_OK .and. present(saved)) saved = has_saved /= 0
    call finish(status, stat, errmsg)
  end subroutine

  subroutine save_int32(self, step, metric, stat, errmsg)
    class(lockstep_manager), intent(in) :: self
    integer(int32), intent(in) :: step
    real(real64), intent(in), optional :: metric
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    call save_int64(self, int(step, int64), metric, stat, errmsg)
  end subroutine

  subroutine save_int64(self, step, metric, stat, errmsg)
    class(lockstep_manager), intent(in) :: self
    integer(int64), intent(in) :: step
    real(real64), intent(in), optional :: metric
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    call finish(c_manager_save(self%handle, step, metric), stat, errmsg)
  end subroutine

  subroutine wait_for_disk(self, stat, errmsg)
    class(lockstep_manager), intent(in) :: self
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    call finish(c_manager_wait(self%handle), stat, errmsg)
  end subroutine

  subroutine stop_requested(self, requested, stat, errmsg)
    class(lockstep_manager), intent(in) :: self
    logical, intent(inout) :: requested
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    integer(c_int) :: status, found
    status = c_manager_stop_requested(self%handle, found)
    if (status == LOCKSTEP_OK) requested = found /= 0
    call finish(status, stat, errmsg)
  end subroutine

end module
