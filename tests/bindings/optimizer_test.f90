!> Optimizers: a rule that is written in Fortran beside the built-in one that does the same, hooks,
!> and closures.
module optimizer_tests
  use, intrinsic :: iso_fortran_env, only: int64, real32, real64
  use check
  implicit none

  integer, parameter :: size1 = 7, rows = 3, columns = 5

  !> Two parameters of the caller's, of both kinds, and what trains them.
  type :: run_t
    real(real64) :: w(size1)
    real(real32) :: v(rows, columns)
    type(lockstep_parameters) :: parameters
    type(lockstep_reducer) :: reducer
    type(lockstep_optimizer) :: optimizer
  end type

  type :: counts_t
    integer :: before = 0, after = 0, fail_at = -1
  end type

contains

  !> Heavy ball: v = momentum v + g; w = w - lr v.
  subroutine heavy_ball(update, stat, context)
    type(lockstep_update), intent(in) :: update
    integer, intent(inout) :: stat
    class(*), intent(inout), optional :: context
    real(real64), pointer :: w(:), g(:), v(:)
    real(real32), pointer :: w32(:), g32(:), v32(:)
    real(real64) :: lr, momentum
    lr = update%hyper_parameter(1)
    momentum = update%hyper_parameter(2)
    if (update%dtype() == LOCKSTEP_F64) then
      call update%value(w)
      call update%gradient(g)
      call update%slot(1, v)
      v = momentum*v + update%gradient_scale()*g
      w = w - lr*v
    else
      call update%value(w32)
      call update%gradient(g32)
      call update%slot(1, v32)
      v32 = real(momentum, real32)*v32 + real(update%gradient_scale(), real32)*g32
      w32 = w32 - real(lr, real32)*v32
    end if
    select type (context)
    type is (integer)
      context = int(update%step())
      if (context == 1000) stat = 1
    end select
  end subroutine

  subroutine failing_update(update, stat, context)
    type(lockstep_update), intent(in) :: update
    integer, intent(inout) :: stat
    class(*), intent(inout), optional :: context
    stat = 5
    if (present(context) .or. update%step() /= 1) stat = 6
  end subroutine

  subroutine begin_run(self)
    type(run_t), target, intent(inout) :: self
    integer :: i, j
    self%w = [(sin(real(i, real64)), i=1, size1)]
    self%v = reshape([(cos(real(j, real32)), j=1, rows*columns)], [rows, columns])
    call self%parameters%create()
    call self%parameters%borrow("w", self%w)
    call self%parameters%borrow("v", self%v)
    call self%reducer%create(self%parameters, ranks)
  end subroutine

  subroutine make_step(self, step)
    type(run_t), intent(inout) :: self
    integer, intent(in) :: step
    real(real64), pointer :: g(:)
    real(real32), pointer :: h(:, :)
    call self%optimizer%zero_gradients()
    call self%parameters%gradient("w", g)
    g = self%w*(own_rank + 1) + step
    call self%reducer%mark_ready("w")
    call self%parameters%gradient("v", h)
    h = self%v + own_rank - step
    call self%reducer%mark_ready("v")
    call self%reducer%finish()
    call self%optimizer%step()
  end subroutine

  subroutine end_run(self)
    type(run_t), intent(inout) :: self
    call self%optimizer%free()
    call self%reducer%free()
    call self%parameters%free()
  end subroutine

  type(lockstep_rule) function rule_of(calls) result(rule)
    integer, target, intent(inout) :: calls
    rule = lockstep_rule("HeavyBall", heavy_ball, [option("lr", 0.1d0), option("momentum", 0.5d0)], ["velocity"], &
                         context=calls)
  end function

  subroutine compare(own, peer, what)
    type(run_t), intent(in) :: own, peer
    character(*), intent(in) :: what
    call expect(all(is_near(own%w, peer%w, 1d-15)), what//' as the built-in rule in real64')
    call expect(all(abs(own%v - peer%v) <= 2e-7*(1 + abs(peer%v))), what//' as the built-in rule in real32')
  end subroutine

  subroutine steps_by_a_rule_in_fortran(sharded)
    logical, intent(in) :: sharded
    type(run_t), target :: own, peer, resumed
    type(lockstep_items) :: items
    integer, target :: last_step
    real(real64), pointer :: velocity(:), buffer(:)
    real(real32), pointer :: matrix(:, :)
    integer :: step
    last_step = 0
    call begin_run(own)
    call begin_run(peer)
    if (sharded) then
      call own%optimizer%create(own%parameters, rule_of(last_step), [option("momentum", 0.9d0)], ranks)
      call peer%optimizer%create(peer%parameters, "SGD", [option("lr", 0.1d0), option("momentum", 0.9d0)], ranks)
    else
      call own%optimizer%create(own%parameters, rule_of(last_step), [option("momentum", 0.9d0)])
      call peer%optimizer%create(peer%parameters, "SGD", [option("lr", 0.1d0), option("momentum", 0.9d0)])
    end if
    do step = 1, 4
      call make_step(own, step)
      call make_step(peer, step)
      call compare(own, peer, 'a step')
    end do
    call expect(last_step == 4 .or. sharded, 'the number of the step')
    call own%optimizer%slot("w", "velocity", velocity)
    call peer%optimizer%slot("w", "momentum_buffer", buffer)
    call expect(size(velocity) == size(buffer) .and. all(is_near(velocity, buffer, 1d-15)), 'the same velocity')
    if (.not. sharded) then
      call own%optimizer%slot("v", "velocity", matrix)
      call expect(all(shape(matrix) == [rows, columns]), 'a slot of the shape of its parameter')
    end if

    ! Saved, changed, loaded into another one, and gone on with.
    call items%create()
    call items%add("optimizer", own%optimizer)
    call lockstep_checkpoint_save(own_path('optimizer_test'), ranks, items)
    call items%create()
    call begin_run(resumed)
    resumed%w = own%w
    resumed%v = own%v
    if (sharded) then
      call resumed%optimizer%create(resumed%parameters, rule_of(last_step), communicator=ranks)
    else
      call resumed%optimizer%create(resumed%parameters, rule_of(last_step))
    end if
    call items%add("optimizer", resumed%optimizer)
    call lockstep_checkpoint_load(own_path('optimizer_test'), ranks, items)
    do step = 5, 7
      call make_step(resumed, step)
      call make_step(peer, step)
    end do
    call compare(resumed, peer, 'a resumed run')
    call expect(last_step == 7 .or. sharded, 'the number of the step, gone on with')
    call items%free()
    call MPI_Barrier(MPI_COMM_WORLD)
    if (own_rank == 0) call execute_command_line('rm '//own_path('optimizer_test'))
    call end_run(own)
    call end_run(peer)
    call end_run(resumed)
  end subroutine

  subroutine steps_as_the_built_in_rule()
    call steps_by_a_rule_in_fortran(.false.)
  end subroutine

  subroutine steps_in_shares_as_the_built_in_rule()
    call steps_by_a_rule_in_fortran(.true.)
  end subroutine

  subroutine refuses_rules_that_are_none()
    type(run_t), target :: one
    call begin_run(one)
    call one%optimizer%create(one%parameters, lockstep_rule("Failing", failing_update, [option("rate", 1d0)]), &
                              stat=stat, errmsg=message)
    call expect_error(LOCKSTEP_ERROR_NAME, "'lr'")
    call one%optimizer%create(one%parameters, lockstep_rule("Failing", failing_update, [option("lr", 1d0)], &
                              ["a", "a"]), stat=stat, errmsg=message)
    call expect_error(LOCKSTEP_ERROR_NAME, "'a' comes twice")
    call one%optimizer%create(one%parameters, "Adaam", stat=stat, errmsg=message)
    call expect_error(LOCKSTEP_ERROR_NAME, 'Adaam')
    call one%optimizer%create(one%parameters, "Adam", [option("beta3", 1)], stat=stat, errmsg=message)
    call expect(stat /= LOCKSTEP_OK .and. index(message, 'beta3') > 0, 'no option beta3')
    call expect(one%optimizer%is_empty(), 'no optimizer')
    call one%optimizer%step(stat=stat, errmsg=message)
    call expect_error(LOCKSTEP_ERROR_HANDLE, 'NULL')
    call one%optimizer%create(one%parameters, lockstep_rule("Failing", failing_update, [option("lr", 1d0)], &
                              whole_parameters=.true.))
    call fill_gradients(one)
    call one%optimizer%step(stat=stat, errmsg=message)
    call expect_error(LOCKSTEP_ERROR_CALLBACK, 'Failing returned 5')
    call end_run(one)
  end subroutine

  subroutine fill_gradients(one)
    type(run_t), intent(in) :: one
    real(real64), pointer :: g(:)
    real(real32), pointer :: h(:, :)
    call one%parameters%gradient("w", g)
    g = 1
    call one%parameters%gradient("v", h)
    h = 1
  end subroutine

  subroutine count_steps(optimizer, stat, report, context)
    type(lockstep_optimizer), intent(in) :: optimizer
    integer, intent(inout) :: stat
    type(lockstep_step_report), intent(in), optional :: report
    class(*), intent(inout), optional :: context
    real(real64) :: lr
    call optimizer%get("lr", lr)
    call expect(is_near(lr, 0.25d0, 1d-15), 'the optimizer that steps')
    select type (context)
    type is (counts_t)
      if (present(report)) then
        context%after = context%after + 1
        call expect(report%applied .and. is_near(report%gradient_norm, sqrt(22d0), 1d-6), 'a report')
      else
        context%before = context%before + 1
        if (context%before == context%fail_at) stat = 9
      end if
    class default
      stat = 1
    end select
  end subroutine

  subroutine calls_hooks_around_steps()
    type(run_t), target :: one
    type(counts_t), target :: counts
    integer(int64) :: before, after
    real(real64) :: old, value
    call begin_run(one)
    call one%optimizer%create(one%parameters, "SGD", [option("lr", 0.25d0)])
    call one%optimizer%clip([option("global_norm", 1000d0)])
    call one%optimizer%before_step(count_steps, before, counts)
    call one%optimizer%after_step(count_steps, after, counts)
    call fill_gradients(one)
    call one%optimizer%step()
    call one%optimizer%step([option("gradient_scale", 1)])
    call expect(counts%before == 2 .and. counts%after == 2, 'a call around each step')
    counts%fail_at = 3
    old = one%w(1)
    call one%optimizer%step(stat=stat, errmsg=message)
    call expect_error(LOCKSTEP_ERROR_CALLBACK, 'returned 9')
    call expect(is_near(one%w(1), old, 0d0) .and. counts%after == 2, 'no step')
    call one%optimizer%remove_hook(before)
    call one%optimizer%remove_hook(after)
    call one%optimizer%clip()
    call one%optimizer%step()
    call expect(counts%before == 3 .and. counts%after == 2, 'no more calls')
    call one%optimizer%set([option("lr", 0.5d0)], "0")
    call one%optimizer%set([option("lr", 0.125d0)])
    call one%optimizer%get("lr", value)
    call expect(is_near(value, 0.125d0, 0d0), 'a rate that was set')
    call one%optimizer%get("lr", value, "x", stat, message)
    call expect(stat /= LOCKSTEP_OK .and. is_near(value, 0.125d0, 0d0), 'no group x')
    call end_run(one)
    call begin_run(one)
    call one%optimizer%create(one%parameters, "SGD", [option("lr", 1d0), option("params", "w")])
    call one%optimizer%add_group([option("params", "v"), option("name", "matrix"), option("lr", 2d0)])
    call one%optimizer%get("lr", value, "matrix")
    call expect(is_near(value, 2d0, 0d0), 'the rate of a group')
    call end_run(one)
  end subroutine

  !> f(x) = sum(a (x - 1)**2), with a = 1, 2, 3, ...
  subroutine quadratic(loss, stat, context)
    real(real64), intent(out) :: loss
    integer, intent(inout) :: stat
    class(*), intent(inout), optional :: context
    real(real64), pointer :: g(:)
    integer :: i
    select type (context)
    type is (run_t)
      call context%optimizer%zero_gradients()
      call context%parameters%gradient("w", g)
      g = [(2*i*(context%w(i) - 1), i=1, size1)]
      loss = sum([(i*(context%w(i) - 1)**2, i=1, size1)])
      if (context%w(1) > 1d6) stat = 4
    class default
      stat = 1
    end select
  end subroutine

  subroutine minimises_by_a_closure()
    type(run_t), target :: one
    real(real64) :: loss
    integer :: step
    call begin_run(one)
    call one%optimizer%create(one%parameters, "LBFGS", [option("params", "w"), option("strong_wolfe", .true.), &
                                                          option("tolerance_grad", 1d-10), option("tolerance_change", 1d-14)])
    do step = 1, 2
      call one%optimizer%step(quadratic, loss, one)
    end do
    call expect(loss < 1d-13 .and. all(is_near(one%w, 1d0, 1d-6)), 'the minimum')
    one%w = 1d7
    call one%optimizer%step(quadratic, loss, one, stat, message)
    call expect_error(LOCKSTEP_ERROR_CALLBACK, 'returned 4')
    call end_run(one)
  end subroutine

end module

program optimizer_test
  use check, only: begin, end_tests, run
  use optimizer_tests
  implicit none
  call begin()
  call run('steps_as_the_built_in_rule', steps_as_the_built_in_rule)
  call run('steps_in_shares_as_the_built_in_rule', steps_in_shares_as_the_built_in_rule)
  call run('refuses_rules_that_are_none', refuses_rules_that_are_none)
  call run('calls_hooks_around_steps', calls_hooks_around_steps)
  call run('minimises_by_a_closure', minimises_by_a_closure)
  call end_tests()
end program
