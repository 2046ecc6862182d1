!> Update rules of the caller's. See lockstep.f90.
module lockstep_rules
  use lockstep_base
  use lockstep_arrays
  use lockstep_callbacks
  use lockstep_options
  use lockstep_pointers
  use lockstep_c_optimizer
  implicit none
  private
  public :: lockstep_rule, lockstep_update, lockstep_update_procedure, c_rule_of, rule_memory

  integer, parameter :: max_slots = 8, max_name = 64

  !> What a rule of the caller's is given: numbers of one kind that are to be updated, of one
  !> parameter or of several that lie side by side in memory.
  type :: lockstep_update
    private
    type(c_update) :: c
  contains
    !> LOCKSTEP_F32 or LOCKSTEP_F64, of value, gradient and slots.
    procedure :: dtype => update_dtype
    !> call update%value(x): `x` is a pointer of rank 1 and of that kind to the numbers that the
    !> rule changes.
    generic :: value => value_f32, value_f64
    !> The same for the gradient, only to read.
    generic :: gradient => gradient_f32, gradient_f64
    !> call update%slot(i, x): the same for slot i of the rule, from 1, which the rule changes as
    !> well.
    generic :: slot => slot_f32, slot_f64
    !> The value of hyper-parameter i of the rule, from 1.
    procedure :: hyper_parameter
    !> The number of this step, from 1.
    procedure :: step => update_step
    !> What the gradient is to be multiplied with.
    procedure :: gradient_scale
    procedure, private :: value_f32, value_f64, gradient_f32, gradient_f64, slot_f32, slot_f64
  end type

  abstract interface
    !> Updates numbers. With another `stat` than 0, the step is LOCKSTEP_ERROR_CALLBACK. Must do the
    !> same on all ranks.
    subroutine lockstep_update_procedure(update, stat, context)
      import
      type(lockstep_update), intent(in) :: update
      integer, intent(inout) :: stat ! 0 before
      class(*), intent(inout), optional :: context
    end subroutine
  end interface

  type :: lockstep_rule
    private
    character(max_name) :: name = ''
    type(lockstep_option), allocatable :: hyper_parameters(:)
    character(max_name), allocatable :: slots(:)
    logical :: whole_parameters = .false.
    type(callback) :: update
  end type

  !> lockstep_rule(name, update, hyper_parameters, slots, whole_parameters, context): a rule with
  !>   update            a lockstep_update_procedure
  !>   hyper_parameters  options with the defaults, one of which is "lr"
  !>   slots             names of up to 8 numbers for each number of a parameter, zeros at first, that are saved
  !>                     with the optimizer's state
  !>   whole_parameters  .true.: each call is for exactly one parameter
  !>   context           a target, which must outlive the optimizer
  interface lockstep_rule
    procedure make_rule
  end interface

  !> What a c_rule points to.
  type :: rule_memory
    character(kind=c_char), allocatable :: name(:), slots(:, :), fields(:, :)
    type(c_ptr), allocatable :: slot_names(:)
    type(c_field), allocatable :: hyper_parameters(:)
  end type

contains

  function make_rule(name, update, hyper_parameters, slots, whole_parameters, context) result(made)
    character(*), intent(in) :: name
    procedure(lockstep_update_procedure) :: update
    type(lockstep_option), intent(in) :: hyper_parameters(:)
    character(*), intent(in), optional :: slots(:)
    logical, intent(in), optional :: whole_parameters
    class(*), intent(inout), target, optional :: context
    type(lockstep_rule) :: made
    made%name = name
    allocate (made%hyper_parameters(size(hyper_parameters)))
    made%hyper_parameters = hyper_parameters
    allocate (made%slots(0))
    if (present(slots)) made%slots = [character(max_name) :: slots]
    if (present(whole_parameters)) made%whole_parameters = whole_parameters
    made%update%procedure = c_funloc(update)
    if (present(context)) made%update%context => context
  end function

  !> A rule as C takes it, for the time of a call.
  function c_rule_of(rule, memory) result(made)
    type(lockstep_rule), intent(in) :: rule
    type(rule_memory), intent(out), target :: memory
    type(c_rule) :: made
    integer :: i
    made%name = c_text(rule%name, memory%name)
    allocate (memory%slots(max_name + 1, size(rule%slots)), memory%slot_names(size(rule%slots)))
    do i = 1, size(rule%slots)
      call put_text(rule%slots(i), memory%slots(:, i))
      memory%slot_names(i) = c_loc(memory%slots(1, i))
    end do
    made%slot_count = size(rule%slots)
    made%slot_names = c_loc(memory%slot_names)
    allocate (memory%hyper_parameters(size(rule%hyper_parameters)))
    allocate (memory%fields(max_name + 1, size(rule%hyper_parameters)))
    do i = 1, size(rule%hyper_parameters)
      call put_text(rule%hyper_parameters(i)%name, memory%fields(:, i))
      memory%hyper_parameters(i) = c_field(c_loc(memory%fields(1, i)), rule%hyper_parameters(i)%value)
    end do
    made%hyper_parameter_count = size(rule%hyper_parameters)
    made%hyper_parameters = c_loc(memory%hyper_parameters)
    made%whole_parameters = merge(1, 0, rule%whole_parameters)
    made%update = c_funloc(call_update)
    made%context = keep_callback(rule%update%procedure, rule%update%context)
  end function

  function call_update(at, update) bind(c, name="") result(failed)
    type(c_ptr), value :: at
    type(c_update), intent(in) :: update
    integer(c_int) :: failed
    type(callback), pointer :: one
    procedure(lockstep_update_procedure), pointer :: own
    type(lockstep_update) :: given
    integer :: stat
    call c_f_pointer(at, one)
    call c_f_procpointer(one%procedure, own)
    given%c = update
    stat = 0
    if (associated(one%context)) then
      call own(given, stat, one%context)
    else
      call own(given, stat)
    end if
    failed = stat
  end function

  function numbers(update, data, name) result(array)
    type(lockstep_update), intent(in) :: update
    type(c_ptr), intent(in) :: data
    character(*), intent(in) :: name
    type(lockstep_array) :: array
    type(c_array) :: found
    found%dtype = update%c%dtype
    found%rank = 1
    found%extents(1) = update%c%size
    found%data = data
    array = array_or(LOCKSTEP_OK, found, name)
  end function

  pure function update_dtype(self) result(dtype)
    class(lockstep_update), intent(in) :: self
    integer :: dtype
    dtype = self%c%dtype
  end function

  pure function update_step(self) result(step)
    class(lockstep_update), intent(in) :: self
    integer(int64) :: step
    step = self%c%step
  end function

  pure function gradient_scale(self) result(scale)
    class(lockstep_update), intent(in) :: self
    real(real64) :: scale
    scale = self%c%gradient_scale
  end function

  function hyper_parameter(self, i) result(value)
    class(lockstep_update), intent(in) :: self
    integer, intent(in) :: i
    real(real64) :: value
    real(c_double), pointer :: values(:)
    call c_f_pointer(self%c%hyper_parameters, values, [i])
    value = values(i)
  end function

  function slot_data(update, i) result(data)
    type(lockstep_update), intent(in) :: update
    integer, intent(in) :: i
    type(c_ptr) :: data
    type(c_ptr), pointer :: slots(:)
    call c_f_pointer(update%c%slots, slots, [i])
    data = slots(i)
  end function

  subroutine value_f32(self, x, stat, errmsg)
    class(lockstep_update), intent(in) :: self
    real(real32), pointer, intent(out) :: x(:)
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    call point(numbers(self, self%c%value, 'value'), x, stat, errmsg)
  end subroutine

  subroutine value_f64(self, x, stat, errmsg)
    class(lockstep_update), intent(in) :: self
    real(real64), pointer, intent(out) :: x(:)
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    call point(numbers(self, self%c%value, 'value'), x, stat, errmsg)
  end subroutine

  subroutine gradient_f32(self, x, stat, errmsg)
    class(lockstep_update), intent(in) :: self
    real(real32), pointer, intent(out) :: x(:)
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    call point(numbers(self, self%c%gradient, 'gradient'), x, stat, errmsg)
  end subroutine

  subroutine gradient_f64(self, x, stat, errmsg)
    class(lockstep_update), intent(in) :: self
    real(real64), pointer, intent(out) :: x(:)
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    call point(numbers(self, self%c%gradient, 'gradient'), x, stat, errmsg)
  end subroutine

  subroutine slot_f32(self, i, x, stat, errmsg)
    class(lockstep_update), intent(in) :: self
    integer, intent(in) :: i
    real(real32), pointer, intent(out) :: x(:)
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    call point(numbers(self, slot_data(self, i), 'slot'), x, stat, errmsg)
  end subroutine

  subroutine slot_f64(self, i, x, stat, errmsg)
    class(lockstep_update), intent(in) :: self
    integer, intent(in) :: i
    real(real64), pointer, intent(out) :: x(:)
    integer, intent(out), optional :: stat
    character(*), intent(inout), optional :: errmsg
    call point(numbers(self, slot_data(self, i), 'slot'), x, stat, errmsg)
  end subroutine

end module
