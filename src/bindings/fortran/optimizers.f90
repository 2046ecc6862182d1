!> Named optimizers, with rules and hooks of the caller's. See lockstep.f90.
module lockstep_optimizers
  use lockstep_base
  use lockstep_arrays
  use lockstep_callbacks
  use lockstep_options
  use lockstep_pointers
  use lockstep_rules
  use lockstep_c_optimizer
  use lockstep_ranks, only: lockstep_communicator
  use lockstep_parameter_values, only: lockstep_parameters
  implicit none
  private
  public :: lockstep_optimizer, lockstep_step_report, lockstep_closure, lockstep_step_hook

  type :: lockstep_step_report
    logical :: applied = .false. ! .false. where the step was skipped, for a gradient that is not finite
    logical :: empty = .false. ! .true. where no parameter had a gradient
    real(real64) :: gradient_norm = 0 ! before clipping; NaN where nobody looked
  end type

  type, extends(lockstep_object) :: lockstep_optimizer
  contains
    !> call optimizer%create(parameters, rule, options, communicator): `rule` is a lockstep_rule or
    !> the name of an update rule: Adadelta, Adagrad, Adam, AdamW, Adamax, ASGD, LAMB, LARS, Lion,
    !> NAdam, RAdam, RMSprop, Rprop, SGD; or LBFGS. Options are its hyper-parameters, by the names
    !> that docs/optimizers.md has; and beside them
    !>   params  globs, as texts, of the names of those parameters that it trains; all, unless given. Others
    !>           may come with add_group().
    !> With a communicator each rank steps a share of the numbers, and has the state of these alone;
    !> not with LBFGS. Collective then, as its steps are. One more option:
    !>   shared_replica  .false.: whether the ranks of a node have one copy of the values
    generic :: create => create_named, create_custom
    !> Adds a group of parameters with options of its own: params; name, a text; and
    !> hyper-parameters, of which those that are not given are as the optimizer's. Collective where
    !> it is sharded.
    procedure :: add_group
    !> Sets hyper-parameters of a group by its name, from "0", or of all groups without one. Alike
    !> on all ranks.
    procedure :: set => set_hyper_parameters
    !> call optimizer%get(name, value, group): a hyper-parameter, of the first group unless that is
    !> given.
    procedure :: get => get_hyper_parameter
    !> Clips gradients in each step: value, norm, global_norm, norm_type = 2, non_finite = error |
    !> skip | ignore. Without options no longer.
    procedure :: clip
    !> call optimizer%step(options, report) updates the parameters that have a gradient. Options:
    !> gradient_scale = 1; allow_none = .false., .true. where it is no error that no parameter has
    !> one; non_finite, as for clipping. Collective where the optimizer is sharded.
    !> call optimizer%step(closure, loss, context) calls a lockstep_closure for loss and gradients,
    !> several times where it searches along a line, as LBFGS does. `loss` is that of the first
    !> call.
    generic :: step => step_once, step_closure
    procedure :: zero_gradients => zero_optimizer_gradients
    !> call optimizer%slot(parameter, slot, x): `x` is a pointer to what an optimizer keeps of a
    !> parameter, in the memory that it works in: numbers of the parameter's shape, such as
    !> "exp_avg" of Adam, or in a sharded one those of this rank's share, of rank 1.
    !> LOCKSTEP_ERROR_NAME where there is none of that name yet.
    generic :: slot => slot_array, slot_f32_1, slot_f32_2, slot_f32_3, slot_f32_4, slot_f64_1, slot_f64_2, &
      slot_f64_3, slot_f64_4
    !> call optimizer%before_step(hook, number, context): a lockstep_step_hook is called around each
    !> step from now on; `number` is for remove_hook(). `context` is a target, which must outlive
    !> the optimizer.
    procedure :: before_step
    procedure :: after_step
    procedure :: remove_hook
    procedure, private :: create_named, create_custom, step_once, step_closure
    procedure, private :: slot_array, slot_f32_1, slot_f32_2, slot_f32_3, slot_f32_4, slot_f64_1, slot_f64_2, &
      slot_f64_3, slot_f64_4
  end type

  abstract interface
    !> Computes the loss and its gradients. With another `stat` than 0, the step is
    !> LOCKSTEP_ERROR_CALLBACK.
    subroutine lockstep_closure(loss, stat, context)
      import
      real(real64), intent(out) :: loss
      integer, intent(inout) :: stat ! 0 before
      class(*), intent(inout), optional :: context
    end subroutine
    !> `report` is present after a step. With another `stat` than 0, the step is
    !> LOCKSTEP_ERROR_CALLBACK.
    subroutine lockstep_step_hook(optimizer, stat, report, context)
      import
      type(lockstep_optimizer), intent(in) :: optimizer
      integer, intent(inout) :: stat ! 0 before
      type(lockstep_step_report), intent(in), optional :: report
      class(*), intent(inout), optional :: context
    end subroutine
  end interface

contains

  subroutine create_named(self, parameters, rule, options, communicator, stat, errmsg)
    class(lockstep_optimizer), intent(inout) :: self
    type(lockstep_parameters), intent(in) :: parameters
    character(*), intent(in) :: rule
    type(lockstep_option), intent(in), optional :: options(:)
    type(lockstep_communicator), intent(in), optional :: communicator
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    type(c_options) :: list
    type(c_ptr) :: made
    integer(c_int) :: status
    if (present(communicator)) then
      status = c_optimizer_create_sharded(parameters%handle, trim(rule)//c_null_char, list%of(options), &
                                          communicator%handle, made)
    else
      status = c_optimizer_create(parameters%handle, trim(rule)//c_null_char, list%of(options), made)
    end if
    call finish_create(self, made, status, stat, errmsg)
  end subroutine

  subroutine create_custom(self, parameters, rule, options, communicator, stat, errmsg)
    class(lockstep_optimizer), intent(inout) :: self
    type(lockstep_parameters), intent(in) :: parameters
    type(lockstep_rule), intent(in) :: rule
    type(lockstep_option), intent(in), optional :: options(:)
    type(lockstep_communicator), intent(in), optional :: communicator
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    type(c_options) :: list
    type(rule_memory), target :: memory
    type(c_ptr) :: ranks, made
    integer(c_int) :: status
    ranks = c_null_ptr
    if (present(communicator)) ranks = communicator%handle
    status = c_optimizer_create_custom(parameters%handle, c_rule_of(rule, memory), list%of(options), &
                                       ranks, made)
    call finish_create(self, made, status, stat, errmsg)
  end subroutine

  subroutine add_group(self, options, stat, errmsg)
    class(lockstep_optimizer), intent(in) :: self
    type(lockstep_option), intent(in) :: options(:)
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    type(c_options) :: list
    call finish(c_optimizer_add_group(self%handle, list%of(options)), stat, errmsg)
  end subroutine

  subroutine set_hyper_parameters(self, options, group, stat, errmsg)
    class(lockstep_optimizer), intent(in) :: self
    type(lockstep_option), intent(in) :: options(:)
    character(*), intent(in), optional :: group
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    type(c_options) :: list
    character(kind=c_char), allocatable, target :: name(:)
    call finish(c_optimizer_set(self%handle, c_text(group, name), list%of(options)), stat, errmsg)
  end subroutine

  subroutine get_hyper_parameter(self, name, value, group, stat, errmsg)
    class(lockstep_optimizer), intent(in) :: self
    character(*), intent(in) :: name
    real(real64), intent(inout) :: value
    character(*), intent(in), optional :: group
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    character(kind=c_char), allocatable, target :: storage(:)
    call finish(c_optimizer_get(self%handle, c_text(group, storage), trim(name)//c_null_char, value), &
                stat, errmsg)
  end subroutine

  subroutine clip(self, options, stat, errmsg)
    class(lockstep_optimizer), intent(in) :: self
    type(lockstep_option), intent(in), optional :: options(:)
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    type(c_options) :: list
    call finish(c_optimizer_clip(self%handle, list%of(options)), stat, errmsg)
  end subroutine

  function report_of(c) result(report)
    type(c_step_report), intent(in) :: c
    type(lockstep_step_report) :: report
    report = lockstep_step_report(c%applied /= 0, c%empty /= 0, c%gradient_norm)
  end function

  subroutine step_once(self, options, report, stat, errmsg)
    class(lockstep_optimizer), intent(in) :: self
    type(lockstep_option), intent(in), optional :: options(:)
    type(lockstep_step_report), intent(inout), optional :: report
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    type(c_options) :: list
    type(c_step_report) :: made
    integer(c_int) :: status
    status = c_optimizer_step(self%handle, list%of(options), made)
    if (status == LOCKSTEP_OK .and. present(report)) report = report_of(made)
    call finish(status, stat, errmsg)
  end subroutine

  subroutine step_closure(self, closure, loss, context, stat, errmsg)
    class(lockstep_optimizer), intent(in) :: self
    procedure(lockstep_closure) :: closure
    real(real64), intent(inout), optional :: loss
    class(*), intent(inout), target, optional :: context
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    type(callback), target :: one
    one%procedure = c_funloc(closure)
    if (present(context)) one%context => context
    call finish(c_optimizer_step_closure(self%handle, c_funloc(call_closure), c_loc(one), loss), &
                stat, errmsg)
  end subroutine

  function call_closure(at, loss) bind(c, name="") result(failed)
    type(c_ptr), value :: at
    real(c_double), intent(inout) :: loss
    integer(c_int) :: failed
    type(callback), pointer :: one
    procedure(lockstep_closure), pointer :: closure
    integer :: stat
    call c_f_pointer(at, one)
    call c_f_procpointer(one%procedure, closure)
    stat = 0
    if (associated(one%context)) then
      call closure(loss, stat, one%context)
    else
      call closure(loss, stat)
    end if
    failed = stat
  end function

  subroutine zero_optimizer_gradients(self, stat, errmsg)
    class(lockstep_optimizer), intent(in) :: self
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    call finish(c_optimizer_zero_gradients(self%handle), stat, errmsg)
  end subroutine

  function slot_of(self, parameter, slot) result(array)
    class(lockstep_optimizer), intent(in) :: self
    character(*), intent(in) :: parameter, slot
    type(lockstep_array) :: array
    type(c_array) :: found
    integer(c_int) :: status
    status = c_optimizer_slot(self%handle, trim(parameter)//c_null_char, trim(slot)//c_null_char, found)
    array = array_or(status, found, trim(parameter)//' '//slot)
  end function

  subroutine slot_array(self, parameter, slot, array, stat, errmsg)
    class(lockstep_optimizer), intent(in) :: self
    character(*), intent(in) :: parameter, slot
    type(lockstep_array), intent(out) :: array
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    array = slot_of(self, parameter, slot)
    call finish_array(array, stat, errmsg)
  end subroutine

  subroutine slot_f32_1(self, parameter, slot, x, stat, errmsg)
    class(lockstep_optimizer), intent(in) :: self
    character(*), intent(in) :: parameter, slot
    real(real32), pointer, intent(out) :: x(:)
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    call point(slot_of(self, parameter, slot), x, stat, errmsg)
  end subroutine

  subroutine slot_f32_2(self, parameter, slot, x, stat, errmsg)
    class(lockstep_optimizer), intent(in) :: self
    character(*), intent(in) :: parameter, slot
    real(real32), pointer, intent(out) :: x(:, :)
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    call point(slot_of(self, parameter, slot), x, stat, errmsg)
  end subroutine

  subroutine slot_f32_3(self, parameter, slot, x, stat, errmsg)
    class(lockstep_optimizer), intent(in) :: self
    character(*), intent(in) :: parameter, slot
    real(real32), pointer, intent(out) :: x(:, :, :)
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    call point(slot_of(self, parameter, slot), x, stat, errmsg)
  end subroutine

  subroutine slot_f32_4(self, parameter, slot, x, stat, errmsg)
    class(lockstep_optimizer), intent(in) :: self
    character(*), intent(in) :: parameter, slot
    real(real32), pointer, intent(out) :: x(:, :, :, :)
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    call point(slot_of(self, parameter, slot), x, stat, errmsg)
  end subroutine

  subroutine slot_f64_1(self, parameter, slot, x, stat, errmsg)
    class(lockstep_optimizer), intent(in) :: self
    character(*), intent(in) :: parameter, slot
    real(real64), pointer, intent(out) :: x(:)
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    call point(slot_of(self, parameter, slot), x, stat, errmsg)
  end subroutine

  subroutine slot_f64_2(self, parameter, slot, x, stat, errmsg)
    class(lockstep_optimizer), intent(in) :: self
    character(*), intent(in) :: parameter, slot
    real(real64), pointer, intent(out) :: x(:, :)
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    call point(slot_of(self, parameter, slot), x, stat, errmsg)
  end subroutine

  subroutine slot_f64_3(self, parameter, slot, x, stat, errmsg)
    class(lockstep_optimizer), intent(in) :: self
    character(*), intent(in) :: parameter, slot
    real(real64), pointer, intent(out) :: x(:, :, :)
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    call point(slot_of(self, parameter, slot), x, stat, errmsg)
  end subroutine

  subroutine slot_f64_4(self, parameter, slot, x, stat, errmsg)
    class(lockstep_optimizer), intent(in) :: self
    character(*), intent(in) :: parameter, slot
    real(real64), pointer, intent(out) :: x(:, :, :, :)
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    call point(slot_of(self, parameter, slot), x, stat, errmsg)
  end subroutine

  subroutine before_step(self, hook, number, context, stat, errmsg)
    class(lockstep_optimizer), intent(in) :: self
    procedure(lockstep_step_hook) :: hook
    integer(int64), intent(inout), optional :: number
    class(*), intent(inout), target, optional :: context
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    class(*), pointer :: own_context
    nullify (own_context)
    if (present(context)) own_context => context
    call finish(c_optimizer_before_step(self%handle, c_funloc(call_hook), &
                                        keep_callback(c_funloc(hook), own_context), number), stat, errmsg)
  end subroutine

  subroutine after_step(self, hook, number, context, stat, errmsg)
    class(lockstep_optimizer), intent(in) :: self
    procedure(lockstep_step_hook) :: hook
    integer(int64), intent(inout), optional :: number
    class(*), intent(inout), target, optional :: context
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    class(*), pointer :: own_context
    nullify (own_context)
    if (present(context)) own_context => context
    call finish(c_optimizer_after_step(self%handle, c_funloc(call_hook), &
                                        keep_callback(c_funloc(hook), own_context), number), stat, errmsg)
  end subroutine

  subroutine remove_hook(self, number, stat, errmsg)
    class(lockstep_optimizer), intent(in) :: self
    integer(int64), intent(in) :: number
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    call finish(c_optimizer_remove_hook(self%handle, number), stat, errmsg)
  end subroutine

  function call_hook(at, optimizer, report) bind(c, name="") result(failed)
    type(c_ptr), value :: at, optimizer
    type(c_step_report), intent(in), optional :: report
    integer(c_int) :: failed
    type(callback), pointer :: one
    procedure(lockstep_step_hook), pointer :: hook
    type(lockstep_optimizer) :: stepped
    type(lockstep_step_report), allocatable :: made ! absent, as an argument, where it is not allocated
    integer :: stat
    call c_f_pointer(at, one)
    call c_f_procpointer(one%procedure, hook)
    stepped%handle = optimizer
    if (present(report)) made = report_of(report)
    stat = 0
    if (associated(one%context)) then
      call hook(stepped, stat, made, one%context)
    else
      call hook(stepped, stat, made)
    end if
    failed = stat
  end function

end module
