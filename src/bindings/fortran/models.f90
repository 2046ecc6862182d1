!> Models of layers, their replicas on all ranks, and inference. See lockstep.f90.
module lockstep_models
  use lockstep_base
  use lockstep_arrays
  use lockstep_callbacks
  use lockstep_options
  use lockstep_c_training
  use lockstep_ranks, only: lockstep_communicator
  use lockstep_parameter_values, only: lockstep_parameters
  use lockstep_pointers, only: lockstep_array
  use lockstep_reducers, only: lockstep_reducer
  implicit none
  private
  public :: lockstep_model, lockstep_replica, lockstep_loss, lockstep_loss_function, c_loss_of

  !> Layers one after another; layer i, from 0, has the parameters "i.weight", "i.bias" and so on.
  type, extends(lockstep_object) :: lockstep_model
  contains
    !> A model without layers.
    procedure :: create => create_model
    !> A model from a TOML file: `[[layer]]` tables with a `type` and the options below, and at the
    !> top a `dtype` for all of them. LOCKSTEP_ERROR_DATA, with file and line, for what is no such
    !> file.
    procedure :: read => read_model
    !> Adds a layer by its type. In options, what has a default need not be given; dtype is "f32"
    !> unless it is "f64":
    !>   linear      in, out, bias = .true., dtype
    !>   conv2d      in, out, kernel, stride = 1, padding = 0, dilation = 1, groups = 1, bias = .true., dtype
    !>   max_pool2d  kernel, stride = kernel, padding = 0
    !>   batch_norm  channels, eps = 1e-5, momentum = 0.1, affine = .true., track_running_stats = .true., dtype
    !>   dropout     p = 0.5
    !>   relu, tanh, sigmoid, gelu, silu, softmax, flatten
    !> and all others of lockstep/nn/model_file.hpp, with one number where a list may be.
    !> LOCKSTEP_ERROR_STATE once the model has a replica, or its parameters were asked for.
    procedure :: add => add_layer
    !> Draws all parameters anew, by the seed, of int32 or int64, and their names alone.
    generic :: initialize => initialize_int32, initialize_int64
    procedure :: parameters => model_parameters
    !> call model%predict(inputs, outputs): for inputs of (..., samples) writes the model's outputs,
    !> of (..., samples), into the caller's array, whose shape and kind must be those of the result.
    !> Both are contiguous. Not collective. The model is as in evaluation meanwhile: dropout passes
    !> everything on, and batch_norm has its running statistics.
    generic :: predict => predict_f32, predict_f64
    procedure, private :: initialize_int32, initialize_int64, predict_f32, predict_f64
  end type

  !> A model whose gradients are averaged over ranks.
  type, extends(lockstep_object) :: lockstep_replica
  contains
    !> call replica%create(model, communicator, options) makes the model of each rank a replica of
    !> rank 0's, and averages gradients from then on. Collective. Options, alike on all ranks: those
    !> of reducer%create(), and
    !>   buffers                 average | broadcast | local: running statistics
    !>   synchronise_batch_norm  .false.
    !>   logical_replicas        0: a power of two, by which results have the same bits on any number of ranks
    procedure :: create => create_replica
    !> What reduces its gradients.
    procedure :: reducer => replica_reducer
    !> call replica%backward(inputs, targets, loss, mean_loss) computes this rank's gradients of the
    !> mean loss over a batch of (..., samples), contiguous arrays, and averages them over the
    !> samples of all ranks. Inputs are of real32 or real64; targets as well, or of int64 where the
    !> loss takes labels. Collective: a rank without samples takes part with extents of 0, or by
    !> call replica%backward(loss, mean_loss). `mean_loss` is that over this rank's samples.
    generic :: backward => backward_without, backward_f32_f32, backward_f64_f64, backward_f32_f64, &
      backward_f64_f32, backward_f32_i64, backward_f64_i64
    procedure, private :: backward_without, backward_f32_f32, backward_f64_f64, backward_f32_f64, &
      backward_f64_f32, backward_f32_i64, backward_f64_i64
  end type

  abstract interface
    !> A loss of the caller's: writes the gradient of the mean loss over samples to `gradient`, of
    !> the shape and kind of outputs, and the mean loss to `loss`. With another `stat` than 0, the
    !> call is LOCKSTEP_ERROR_CALLBACK on all ranks.
    subroutine lockstep_loss_function(outputs, targets, gradient, loss, stat, context)
      import
      type(lockstep_array), intent(in) :: outputs, targets, gradient
      real(real64), intent(out) :: loss
      integer, intent(inout) :: stat ! 0 before
      class(*), intent(inout), optional :: context
    end subroutine
  end interface

  type :: lockstep_loss
    private
    character(64) :: name = ''
    type(callback) :: own
  end type

  !> What is minimised: lockstep_loss("mean_squared_error"), lockstep_loss("cross_entropy"), with
  !> targets of int64, or lockstep_loss(procedure, context) for a lockstep_loss_function.
  interface lockstep_loss
    procedure named_loss, own_loss
  end interface

contains

  subroutine create_model(self, stat, errmsg)
    class(lockstep_model), intent(inout) :: self
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    type(c_ptr) :: made
    integer(c_int) :: status
    status = c_model_create(made)
    call finish_create(self, made, status, stat, errmsg)
  end subroutine

  subroutine read_model(self, path, stat, errmsg)
    class(lockstep_model), intent(inout) :: self
    character(*), intent(in) :: path
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    type(c_ptr) :: made
    integer(c_int) :: status
    status = c_model_read(trim(path)//c_null_char, made)
    call finish_create(self, made, status, stat, errmsg)
  end subroutine

  subroutine add_layer(self, type, options, stat, errmsg)
    class(lockstep_model), intent(in) :: self
    character(*), intent(in) :: type
    type(lockstep_option), intent(in), optional :: options(:)
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    type(c_options) :: list
    call finish(c_model_add(self%handle, trim(type)//c_null_char, list%of(options)), stat, errmsg)
  end subroutine

  subroutine initialize_int32(self, seed, stat, errmsg)
    class(lockstep_model), intent(in) :: self
    integer(int32), intent(in) :: seed
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    call initialize_int64(self, int(seed, int64), stat, errmsg)
  end subroutine

  subroutine initialize_int64(self, seed, stat, errmsg)
    class(lockstep_model), intent(in) :: self
    integer(int64), intent(in) :: seed
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    call finish(c_model_initialize(self%handle, seed), stat, errmsg)
  end subroutine

  subroutine model_parameters(self, parameters, stat, errmsg)
    class(lockstep_model), intent(in) :: self
    type(lockstep_parameters), intent(inout) :: parameters
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    type(c_ptr) :: made
    integer(c_int) :: status
    status = c_model_parameters(self%handle, made)
    call finish_create(parameters, made, status, stat, errmsg)
  end subroutine

  subroutine predict_f32(self, inputs, outputs, stat, errmsg)
    class(lockstep_model), intent(in) :: self
    real(real32), intent(in), target :: inputs(..)
    real(real32), intent(inout), target :: outputs(..)
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    call finish(c_model_predict(self%handle, described(inputs), described(outputs)), stat, errmsg)
  end subroutine

  subroutine predict_f64(self, inputs, outputs, stat, errmsg)
    class(lockstep_model), intent(in) :: self
    real(real64), intent(in), target :: inputs(..)
    real(real64), intent(inout), target :: outputs(..)
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    call finish(c_model_predict(self%handle, described(inputs), described(outputs)), stat, errmsg)
  end subroutine

  subroutine create_replica(self, model, communicator, options, stat, errmsg)
    class(lockstep_replica), intent(inout) :: self
    type(lockstep_model), intent(in) :: model
    type(lockstep_communicator), intent(in) :: communicator
    type(lockstep_option), intent(in), optional :: options(:)
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    type(c_options) :: list
    type(c_ptr) :: made
    integer(c_int) :: status
    status = c_replica_create(model%handle, communicator%handle, list%of(options), made)
    call finish_create(self, made, status, stat, errmsg)
  end subroutine

  subroutine replica_reducer(self, reducer, stat, errmsg)
    class(lockstep_replica), intent(in) :: self
    type(lockstep_reducer), intent(inout) :: reducer
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    type(c_ptr) :: made
    integer(c_int) :: status
    status = c_replica_reducer(self%handle, made)
    call finish_create(reducer, made, status, stat, errmsg)
  end subroutine

  subroutine backward_without(self, loss, mean_loss, stat, errmsg)
    class(lockstep_replica), intent(in) :: self
    type(lockstep_loss), intent(in), target :: loss
    real(real64), intent(inout), optional :: mean_loss
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    call backward(self, loss, mean_loss, stat, errmsg)
  end subroutine

  subroutine backward(self, loss, mean_loss, stat, errmsg, inputs, targets)
    class(lockstep_replica), intent(in) :: self
    type(lockstep_loss), intent(in), target :: loss
    real(real64), intent(inout), optional :: mean_loss
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    type(c_array), intent(in), optional :: inputs, targets
    character(kind=c_char), allocatable, target :: name(:)
    call finish(c_replica_backward(self%handle, inputs, targets, c_loss_of(loss, name), mean_loss), &
                stat, errmsg)
  end subroutine

  subroutine backward_f32_f32(self, inputs, targets, loss, mean_loss, stat, errmsg)
    class(lockstep_replica), intent(in) :: self
    real(real32), intent(in), target :: inputs(..), targets(..)
    type(lockstep_loss), intent(in), target :: loss
    real(real64), intent(inout), optional :: mean_loss
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    call backward(self, loss, mean_loss, stat, errmsg, described(inputs), described(targets))
  end subroutine

  subroutine backward_f64_f64(self, inputs, targets, loss, mean_loss, stat, errmsg)
    class(lockstep_replica), intent(in) :: self
    real(real64), intent(in), target :: inputs(..), targets(..)
    type(lockstep_loss), intent(in), target :: loss
    real(real64), intent(inout), optional :: mean_loss
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    call backward(self, loss, mean_loss, stat, errmsg, described(inputs), described(targets))
  end subroutine

  subroutine backward_f32_f64(self, inputs, targets, loss, mean_loss, stat, errmsg)
    class(lockstep_replica), intent(in) :: self
    real(real32), intent(in), target :: inputs(..)
    real(real64), intent(in), target :: targets(..)
    type(lockstep_loss), intent(in), target :: loss
    real(real64), intent(inout), optional :: mean_loss
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    call backward(self, loss, mean_loss, stat, errmsg, described(inputs), described(targets))
  end subroutine

  subroutine backward_f64_f32(self, inputs, targets, loss, mean_loss, stat, errmsg)
    class(lockstep_replica), intent(in) :: self
    real(real64), intent(in), target :: inputs(..)
    real(real32), intent(in), target :: targets(..)
    type(lockstep_loss), intent(in), target :: loss
    real(real64), intent(inout), optional :: mean_loss
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    call backward(self, loss, mean_loss, stat, errmsg, described(inputs), described(targets))
  end subroutine

  subroutine backward_f32_i64(self, inputs, targets, loss, mean_loss, stat, errmsg)
    class(lockstep_replica), intent(in) :: self
    real(real32), intent(in), target :: inputs(..)
    integer(int64), intent(in), target :: targets(..)
    type(lockstep_loss), intent(in), target :: loss
    real(real64), intent(inout), optional :: mean_loss
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    call backward(self, loss, mean_loss, stat, errmsg, described(inputs), described(targets))
  end subroutine

  subroutine backward_f64_i64(self, inputs, targets, loss, mean_loss, stat, errmsg)
    class(lockstep_replica), intent(in) :: self
    real(real64), intent(in), target :: inputs(..)
    integer(int64), intent(in), target :: targets(..)
    type(lockstep_loss), intent(in), target :: loss
    real(real64), intent(inout), optional :: mean_loss
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    call backward(self, loss, mean_loss, stat, errmsg, described(inputs), described(targets))
  end subroutine

  function named_loss(name) result(made)
    character(*), intent(in) :: name
    type(lockstep_loss) :: made
    made%name = name
  end function

  function own_loss(procedure, context) result(made)
    procedure(lockstep_loss_function) :: procedure
    class(*), intent(inout), target, optional :: context
    type(lockstep_loss) :: made
    made%own%procedure = c_funloc(procedure)
    if (present(context)) made%own%context => context
  end function

  !> A loss as C takes it: for the time of a call, or where it is kept.
  function c_loss_of(loss, name, kept) result(made)
    type(lockstep_loss), intent(in), target :: loss
    character(kind=c_char), allocatable, target, intent(out) :: name(:)
    logical, intent(in), optional :: kept
    type(c_loss) :: made
    if (c_associated(loss%own%procedure)) then
      made%function = c_funloc(call_loss)
      made%context = c_loc(loss%own)
      if (present(kept)) made%context = keep_callback(loss%own%procedure, loss%own%context)
    else
      made%name = c_text(loss%name, name)
    end if
  end function

  function call_loss(at, outputs, targets, gradient, value) bind(c, name="") result(failed)
    type(c_ptr), value :: at, gradient
    type(c_array), intent(in) :: outputs, targets
    real(c_double), intent(inout) :: value
    integer(c_int) :: failed
    type(callback), pointer :: one
    procedure(lockstep_loss_function), pointer :: loss
    type(lockstep_array) :: arrays(3)
    integer :: stat
    call c_f_pointer(at, one)
    call c_f_procpointer(one%procedure, loss)
    arrays%c = [outputs, targets, outputs]
    arrays(3)%c%data = gradient
    stat = 0
    if (associated(one%context)) then
      call loss(arrays(1), arrays(2), arrays(3), value, stat, one%context)
    else
      call loss(arrays(1), arrays(2), arrays(3), value, stat)
    end if
    failed = stat
  end function

end module
