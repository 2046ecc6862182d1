!> What reduces the gradients of parameters over ranks. See lockstep.f90.
module lockstep_reducers
  use lockstep_base
  use lockstep_options
  use lockstep_c_parameters
  use lockstep_parameter_values, only: lockstep_parameters
  use lockstep_ranks, only: lockstep_communicator
  implicit none
  private
  public :: lockstep_reducer

  !> Averages the gradients of parameters over all ranks.
  type, extends(lockstep_object) :: lockstep_reducer
  contains
    !> call reducer%create(parameters, communicator, options). Collective; names and shapes are
    !> compared over the ranks. Options, alike on all ranks, with what is the default first:
    !>   reduction       mean | sum, of weighted gradients
    !>   missing         zero | leave_out | error: what becomes of gradients that some ranks have not
    !>   bucket_bytes    262144: how much is reduced at a time
    !>   predivide       1: divides gradients before they are summed
    !>   wire            full | fp16 | bf16: the format between nodes
    !>   compression     none | top_k, with fraction (0.05) and least_size (1024) |
    !>                   power_sgd, with rank (4) and least_factor (2): between nodes
    !>   keep_gradients  .true.
    procedure :: create => create_reducer
    !> What the gradients of this rank count, such as its number of cells or samples; 1 by default,
    !> and 0 where it has none.
    procedure :: set_weight
    !> This rank has written its gradient where parameters%gradient() says, and leaves it alone
    !> until finish() has returned. The reduction begins as soon as it can.
    procedure :: mark_ready
    !> Ends the reduction: each gradient is the mean or sum over ranks. Collective.
    procedure :: finish => finish_reduction
    !> While set, backwards add up on this rank and nothing is reduced; alike on all ranks.
    procedure :: set_accumulating
    !> Forgets, on this rank, what has come together since the last reduction.
    procedure :: discard
    !> Seconds that this rank has waited for others in reductions so far.
    procedure :: waited
  end type

contains

  subroutine create_reducer(self, parameters, communicator, options, stat, errmsg)
    class(lockstep_reducer), intent(inout) :: self
    type(lockstep_parameters), intent(in) :: parameters
    type(lockstep_communicator), intent(in) :: communicator
    type(lockstep_option), intent(in), optional :: options(:)
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    type(c_options) :: list
    type(c_ptr) :: made
    integer(c_int) :: status
    status = c_reducer_create(parameters%handle, communicator%handle, list%of(options), made)
    call finish_create(self, made, status, stat, errmsg)
  end subroutine

  subroutine set_weight(self, weight, stat, errmsg)
    class(lockstep_reducer), intent(in) :: self
    real(real64), intent(in) :: weight
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    call finish(c_reducer_set_weight(self%handle, weight), stat, errmsg)
  end subroutine

  subroutine mark_ready(self, name, stat, errmsg)
    class(lockstep_reducer), intent(in) :: self
    character(*), intent(in) :: name
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    call finish(c_reducer_mark_ready(self%handle, trim(name)//c_null_char), stat, errmsg)
  end subroutine

  subroutine finish_reduction(self, stat, errmsg)
    class(lockstep_reducer), intent(in) :: self
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    call finish(c_reducer_finish(self%handle), stat, errmsg)
  end subroutine

  subroutine set_accumulating(self, accumulating, stat, errmsg)
    class(lockstep_reducer), intent(in) :: self
    logical, intent(in) :: accumulating
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    call finish(c_reducer_set_accumulating(self%handle, merge(1_c_int, 0_c_int, accumulating)), stat, errmsg)
  end subroutine

  subroutine discard(self, stat, errmsg)
    class(lockstep_reducer), intent(in) :: self
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    call finish(c_reducer_discard(self%handle), stat, errmsg)
  end subroutine

  subroutine waited(self, seconds, stat, errmsg)
    class(lockstep_reducer), intent(in) :: self
    real(real64), intent(inout) :: seconds
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    call finish(c_reducer_waited(self%handle, seconds), stat, errmsg)
  end subroutine

end module
