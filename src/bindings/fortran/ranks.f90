!> MPI: the environment and communicators. See lockstep.f90.
module lockstep_ranks
  use lockstep_base
  use lockstep_options
  use lockstep_c_parameters
  use mpi_f08, only: MPI_Comm
  implicit none
  private
  public :: lockstep_environment, lockstep_communicator, lockstep_watchdog

  type, extends(lockstep_object) :: lockstep_environment
  contains
    !> Initialises MPI for calls of one thread at a time, if nobody has; freed, it finalises what it
    !> began. For programs that have no call of MPI_Init.
    procedure :: create => create_environment
  end type

  type, extends(lockstep_object) :: lockstep_communicator
  contains
    !> call communicator%create(comm, options): a duplicate of the caller's communicator, a
    !> type(MPI_Comm) of mpi_f08 or an integer of mpi, on which all messages of lockstep travel.
    !> Collective. MPI must be initialised. Options, all but the last alike on all ranks:
    !>   share_memory  .true.: ranks of a node may work in memory that they share
    !>   node          ranks of one machine with different numbers count as on different nodes
    !>   deadline      600: seconds that this rank waits until others come to a collective call and go on with it;
    !>                 then it is LOCKSTEP_ERROR_DEADLINE. 0 is for ever. Where it is not given, LOCKSTEP_DEADLINE of
    !>                 the environment counts.
    generic :: create => create_f08, create_integer
    procedure :: rank => communicator_rank
    procedure :: size => communicator_size
    !> Frees the duplicate. Collective. What uses it gets LOCKSTEP_ERROR_STATE from then on. One
    !> that is not closed is freed in MPI_Finalize(), since free() does not wait for other ranks.
    procedure :: close => close_communicator
    procedure, private :: create_f08, create_integer
  end type

  !> A thread of each rank that calls no MPI, and that the others ask where their ranks are. Where a deadline passes on a
  !> rank, one report of all ranks is printed, before the call ends with LOCKSTEP_ERROR_DEADLINE. For programs that have an
  !> MPI_Init of their own: a lockstep_environment has one, if it has begun MPI. One a process.
  type, extends(lockstep_object) :: lockstep_watchdog
  contains
    !> call watchdog%create(communicator, options). Collective. Options:
    !>   signal  0: the number of a signal at which one of the ranks that get it prints such a report at any time
    !>   grace   0: seconds after a deadline until the process is ended, if the program has not done so; 0 is never
    procedure :: create => create_watchdog
  end type

contains

  subroutine create_environment(self, stat, errmsg)
    class(lockstep_environment), intent(inout) :: self
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    type(c_ptr) :: made
    integer(c_int) :: status
    status = c_environment_create(c_null_ptr, c_null_ptr, made)
    call finish_create(self, made, status, stat, errmsg)
  end subroutine

  subroutine create_f08(self, communicator, options, stat, errmsg)
    class(lockstep_communicator), intent(inout) :: self
    type(MPI_Comm), intent(in) :: communicator
    type(lockstep_option), intent(in), optional :: options(:)
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    call create_integer(self, communicator%MPI_VAL, options, stat, errmsg)
  end subroutine

  subroutine create_integer(self, communicator, options, stat, errmsg)
    class(lockstep_communicator), intent(inout) :: self
    integer, intent(in) :: communicator
    type(lockstep_option), intent(in), optional :: options(:)
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    type(c_options) :: list
    type(c_ptr) :: made
    integer(c_int) :: status
    status = c_communicator_create_f(communicator, list%of(options), made)
    call finish_create(self, made, status, stat, errmsg)
  end subroutine

  subroutine create_watchdog(self, communicator, options, stat, errmsg)
    class(lockstep_watchdog), intent(inout) :: self
    class(lockstep_communicator), intent(in) :: communicator
    type(lockstep_option), intent(in), optional :: options(:)
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    type(c_options) :: list
    type(c_ptr) :: made
    integer(c_int) :: status
    status = c_watchdog_create(communicator%handle, list%of(options), made)
    call finish_create(self, made, status, stat, errmsg)
  end subroutine

  subroutine communicator_rank(self, rank, stat, errmsg)
    class(lockstep_communicator), intent(in) :: self
    integer, intent(inout) :: rank
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    call finish(c_communicator_rank(self%handle, rank), stat, errmsg)
  end subroutine

  subroutine communicator_size(self, size, stat, errmsg)
    class(lockstep_communicator), intent(in) :: self
    integer, intent(inout) :: size
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    call finish(c_communicator_size(self%handle, size), stat, errmsg)
  end subroutine

  subroutine close_communicator(self, stat, errmsg)
    class(lockstep_communicator), intent(inout) :: self
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    call finish(c_communicator_close(self%handle), stat, errmsg)
  end subroutine

end module
