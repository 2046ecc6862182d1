!> The whole road of the Fortran interface: a model, its replicas, an optimizer, training and
!> inference. Expected numbers are computed here, for a linear model whose gradients have a closed
!> form.
module training_tests
  use, intrinsic :: iso_fortran_env, only: int64, real32, real64
  use check
  use linear_model
  implicit none

contains

  subroutine trains_as_by_hand()
    call train_as_by_hand(ranks, lockstep_loss("mean_squared_error"))
  end subroutine

  !> The mean squared error by a procedure of the caller's.
  subroutine own_loss(outputs, targets, gradient, loss, stat, context)
    type(lockstep_array), intent(in) :: outputs, targets, gradient
    real(real64), intent(out) :: loss
    integer, intent(inout) :: stat
    class(*), intent(inout), optional :: context
    real(real64), pointer :: y(:, :), t(:, :), g(:, :)
    call expect(outputs%dtype() == LOCKSTEP_F64 .and. outputs%rank() == 2, 'a dtype and a rank')
    call outputs%get(y)
    call expect(all(outputs%extents() == shape(y)), 'the same extents')
    call targets%get(t)
    call gradient%get(g)
    loss = sum((y - t)**2)/size(y)
    g = 2*(y - t)/size(y)
    select type (context)
    type is (integer)
      context = context + 1
    class default
      stat = 1
    end select
  end subroutine

  subroutine failing_loss(outputs, targets, gradient, loss, stat, context)
    type(lockstep_array), intent(in) :: outputs, targets, gradient
    real(real64), intent(out) :: loss
    integer, intent(inout) :: stat
    class(*), intent(inout), optional :: context
    real(real32), pointer :: wrong_kind(:, :)
    real(real64), pointer :: wrong_rank(:), g(:, :)
    call outputs%get(wrong_kind, stat)
    call expect(stat == LOCKSTEP_ERROR_DTYPE, 'another kind')
    call targets%get(wrong_rank, stat)
    call expect(stat == LOCKSTEP_ERROR_SHAPE, 'another rank')
    call gradient%get(g, stat)
    call expect(stat == LOCKSTEP_OK .and. .not. present(context), 'no context')
    g = 0
    loss = 0
    if (own_rank == 0) stat = 7
  end subroutine

  subroutine trains_by_a_loss_of_the_callers()
    integer, target :: calls
    calls = 0
    call train_as_by_hand(ranks, lockstep_loss(own_loss, calls))
    call expect(calls == merge(0, 3, sample_count(own_rank) == 0), 'a call for each step')
  end subroutine

  subroutine predicts()
    type(lockstep_model) :: model
    type(lockstep_parameters) :: parameters
    real(real64), pointer :: w(:, :), b(:)
    real(real64), allocatable :: x(:, :), t(:, :)
    real(real64) :: y(outputs, 1), wide(2*outputs, 1)
    real(real32) :: y32(outputs, 1)
    call make_model(model)
    call model%parameters(parameters)
    call parameters%value("0.weight", w)
    call parameters%value("0.bias", b)
    call batch_of(0, x, t)
    if (rank_count == 1) call batch_of(0, x, t)
    call model%predict(x, y)
    call expect(all(is_near(y(:, 1), matmul(transpose(w), x(:, 1)) + b, 1d-12)), 'outputs by hand')
    call model%predict(x*1, y)
    call expect(all(is_near(y(:, 1), matmul(transpose(w), x(:, 1)) + b, 1d-12)), 'outputs of an expression')
    y = 42
    call model%predict(x, y(1:1, :), stat, message)
    call expect_error(LOCKSTEP_ERROR_SHAPE, 'outputs')
    call model%predict(real(x, real32), y32, stat, message)
    call expect_error(LOCKSTEP_ERROR_DTYPE, '')
    wide = 1
    call model%predict(x, wide(::2, :), stat, message)
    call expect_error(LOCKSTEP_ERROR_SHAPE, "'outputs': expected contiguous memory")
    call expect(all(abs(y - 42) <= 0) .and. all(abs(wide - 1) <= 0), 'outputs as they were')
    call model%predict(x(:, 1:0), y(:, 1:0))
    call model%predict(x(:, 3:-4), y(:, 3:-4))
    call model%predict(x(:, 1:0)*1, y(:, 3:-4))
    call model%add("tanh", stat=stat, errmsg=message)
    call expect_error(LOCKSTEP_ERROR_STATE, 'in use already')
    call model%initialize(6_int64)
    call parameters%free()
    call model%free()
  end subroutine

  real(real64) function halves(step, context) result(factor)
    integer(int64), intent(in) :: step
    class(*), intent(inout), optional :: context
    factor = merge(0.25d0, 0.5d0**step, present(context))
  end function

  !> A function of two numbers, learned from a reservoir that ranks fill unevenly.
  subroutine trains_for_a_time()
    type(lockstep_model) :: model
    type(lockstep_replica) :: replica
    type(lockstep_parameters) :: parameters
    type(lockstep_optimizer) :: optimizer
    type(lockstep_schedule) :: schedule
    type(lockstep_scheduler) :: scheduler
    type(lockstep_reservoir) :: reservoir
    type(lockstep_array) :: inputs_drawn, targets_drawn
    type(lockstep_trainer) :: trainer
    type(lockstep_train_report) :: report
    real(real32), allocatable :: x(:, :), y(:, :)
    real(real32), pointer :: some_x(:, :), some_y(:, :)
    real(real64), pointer :: wrong(:, :)
    real(real64) :: first, lr, mean_loss
    integer(int64) :: most, total, seen, kept, last_step
    integer :: i, shown
    call model%create()
    call model%add("linear", [option("in", 2), option("out", 16)])
    call model%add("tanh")
    call model%add("linear", [option("in", 16), option("out", 1)])
    call model%initialize(1)
    call replica%create(model, ranks, [option("reduction", "mean")])
    call model%parameters(parameters)
    call optimizer%create(parameters, "Adam", [option("lr", 0.01d0), option("amsgrad", .true.)])
    call schedule%create("cosine", [option("steps", 100000)])
    call schedule%warm_up(10, 0.1d0, schedule)
    call scheduler%create(optimizer, schedule)
    call optimizer%get("lr", lr)
    call expect(is_near(lr, 0.001d0, 1d-12), 'a small rate at first')
    call reservoir%create(ranks, 400, [2], [1], [option("seed", 3)])
    call trainer%create(replica, optimizer, lockstep_loss("mean_squared_error"), scheduler, reservoir, 32)
    call trainer%train(1, report, stat, message)
    call expect_error(LOCKSTEP_ERROR_STATE, 'no rank has seen any')
    call expect(lockstep_last_error_is_collective(), 'an error of all ranks')

    ! Only rank 0 has anything to show.
    shown = merge(200, 0, own_rank == 0)
    allocate (x(2, shown), y(1, shown))
    x(1, :) = [(sin(real(3*i)), i=1, shown)]
    x(2, :) = [(cos(real(5*i)), i=1, shown)]
    y(1, :) = x(1, :)*x(2, :)
    call reservoir%add(x, y)
    call reservoir%seen(seen)
    call reservoir%size(kept)
    call expect(seen == shown .and. kept == min(shown, 400/rank_count), 'what is kept')
    call reservoir%draw(8, inputs_drawn, targets_drawn)
    call inputs_drawn%get(some_x)
    call targets_drawn%get(some_y)
    call expect(all(shape(some_x) == [2, merge(8, 0, own_rank == 0)]), 'some of it')
    call expect(size(some_y) == size(some_x, 2) .and. associated(some_y), 'as many targets')
    call targets_drawn%get(wrong, stat, message)
    call expect_error(LOCKSTEP_ERROR_DTYPE, 'expected real(real32) of rank 2')

    call trainer%train(10, report)
    first = report%loss
    call expect(report%steps == 10 .and. first > 0, 'ten steps')
    total = 10
    do i = 1, 3
      call trainer%train_for(0.01d0, report)
      call MPI_Allreduce(report%steps, most, 1, MPI_INTEGER8, MPI_MAX, MPI_COMM_WORLD)
      call expect(most == report%steps, 'the same steps on all ranks')
      total = total + report%steps
    end do
    do i = 1, 50
      if (report%loss < first/20) exit
      call trainer%train(100, report)
      total = total + report%steps
    end do
    call expect(report%loss < first/20, 'a small loss')
    call scheduler%last_step(last_step)
    call expect(last_step == total, 'a scheduler that has come along')
    call trainer%train_for(-1d0, report, stat, message)
    call expect_error(LOCKSTEP_ERROR_OPTION, '-1')
    mean_loss = -1
    call trainer%step(x, y, mean_loss)
    call expect(own_rank > 0 .or. (mean_loss > 0 .and. mean_loss < first), 'the loss of a step')
    if (own_rank == 0) then
      call trainer%step(x(:, ::2), y(:, ::2), stat=stat, errmsg=message)
    else
      call trainer%step(stat=stat, errmsg=message)
    end if
    call expect_error(LOCKSTEP_ERROR_SHAPE, "'inputs': expected contiguous memory")

    call trainer%free()
    call reservoir%free()
    call scheduler%free()
    call schedule%free()
    call optimizer%free()
    call parameters%free()
    call replica%free()
    call model%free()
  end subroutine

  subroutine classifies()
    type(lockstep_model) :: model
    type(lockstep_replica) :: replica
    type(lockstep_parameters) :: parameters
    type(lockstep_reservoir) :: reservoir
    type(lockstep_array) :: inputs_drawn, targets_drawn
    real(real32), pointer :: g(:), some(:, :)
    integer(int64), pointer :: labels(:)
    real(real32) :: x(2, 3)
    real(real64) :: loss
    call model%create()
    call model%add("linear", [option("in", 2), option("out", 4)])
    call model%initialize(1)
    call model%parameters(parameters)
    call parameters%value("0.weight", some)
    call parameters%value("0.bias", g)
    some = 0
    g = 0
    call replica%create(model, ranks)
    x = 1
    call replica%backward(x, [1_int64, 1_int64, 3_int64], lockstep_loss("cross_entropy"), loss)
    call expect(is_near(loss, log(4d0), 1d-6), 'the loss of equal outputs')
    call parameters%read_gradient("0.bias", g)
    call expect(all(abs(g - [0.25, 0.25 - 2./3, 0.25, 0.25 - 1./3]) < 1e-6), 'gradients by hand')
    call reservoir%create(ranks, 100_int64, [2], [integer ::], target_dtype=LOCKSTEP_I64)
    call reservoir%add(x, [1_int64, 1_int64, 3_int64])
    call reservoir%draw(6, inputs_drawn, targets_drawn)
    call inputs_drawn%get(some)
    call targets_drawn%get(labels)
    call expect(all(labels == 1 .or. labels == 3) .and. size(labels) == size(some, 2), 'labels')
    call reservoir%free()
    call replica%free()
    call parameters%free()
    call model%free()
  end subroutine

  subroutine count_down(loss, samples, stat, context)
    real(real64), intent(out) :: loss
    integer(int64), intent(out) :: samples
    integer, intent(inout) :: stat
    class(*), intent(inout), optional :: context
    samples = 1
    select type (context)
    type is (integer)
      loss = context
      context = context - 1
      if (context < 0) stat = 3
    end select
  end subroutine

  subroutine runs_the_callers_own_steps()
    type(lockstep_trainer) :: trainer
    type(lockstep_train_report) :: report
    integer, target :: left
    left = 4
    call trainer%create(ranks, count_down, left)
    call trainer%train(3_int64, report)
    call expect(report%steps == 3 .and. is_near(report%loss, 3d0, 1d-12), 'three steps')
    call trainer%train(3, report, stat, message)
    call expect_error(LOCKSTEP_ERROR_CALLBACK, '3')
    call trainer%step(stat=stat, errmsg=message)
    call expect_error(LOCKSTEP_ERROR_STATE, 'own step')
    call trainer%free()
  end subroutine

  subroutine tells_all_ranks_what_one_does_wrong()
    type(lockstep_model) :: model, none
    type(lockstep_replica) :: replica
    real(real64), allocatable :: x(:, :), t(:, :)
    real(real64) :: mean_loss
    character(20) :: name
    call make_model(model)
    call replica%create(model, ranks)
    call batch_of(0, x, t)
    x = reshape([1d0, 2d0, 3d0], [inputs, 1])
    t = reshape([1d0, 2d0], [outputs, 1])
    mean_loss = -1
    if (own_rank == 0) t = reshape([1d0, 2d0, 3d0, 4d0], [outputs, 2])
    call replica%backward(x, t, lockstep_loss("mean_squared_error"), mean_loss, stat, message)
    call expect_error(LOCKSTEP_ERROR_SHAPE, 'as many samples')
    if (own_rank == 0) then
      call replica%backward(x, t(:, 1:1), lockstep_loss(failing_loss), stat=stat, errmsg=message)
    else
      call replica%backward(x, t, lockstep_loss(failing_loss), stat=stat, errmsg=message)
    end if
    call expect_error(LOCKSTEP_ERROR_CALLBACK, 'returned 7')
    name = "mean_squared_error"
    if (own_rank == 0) name = "mean_squared_eror"
    call replica%backward(x, t, lockstep_loss(name), mean_loss, stat, message)
    call expect_error(LOCKSTEP_ERROR_OPTION, 'eror')
    if (own_rank == 0) then
      call replica%create(none, ranks, stat=stat, errmsg=message)
    else
      call replica%create(model, ranks, stat=stat, errmsg=message)
    end if
    call expect_error(LOCKSTEP_ERROR_HANDLE, 'NULL')
    call replica%create(model, ranks, [option("buckets", 1)], stat, message)
    call expect_error(LOCKSTEP_ERROR_OPTION, "no option 'buckets'")
    call expect(mean_loss < 0 .and. .not. replica%is_empty(), 'results that are untouched')
    call replica%backward(x, t(:, 1:1), lockstep_loss("mean_squared_error"), mean_loss)
    call expect(mean_loss >= 0, 'a loss')
    call replica%free()
    call model%free()
  end subroutine

  subroutine schedules_follow_the_step()
    type(lockstep_parameters) :: parameters
    type(lockstep_optimizer) :: optimizer
    type(lockstep_schedule) :: constant, own, with_context, both, all
    type(lockstep_scheduler) :: scheduler
    real(real64), target :: w(1)
    real(real64) :: lr, expected
    integer, target :: context
    integer :: step
    w = 0
    context = 0
    call parameters%create()
    call parameters%borrow("w", w)
    call optimizer%create(parameters, "SGD", [option("lr", 1d0)])
    call constant%create("constant", [option("factor", 1)])
    call own%create(halves)
    call with_context%create(halves, context)
    call both%chain([own, with_context])
    call all%sequence([both, constant], [3])
    call all%sequence([both, constant], [3_int64, 4_int64], stat, message)
    call expect_error(LOCKSTEP_ERROR_OPTION, 'one step less than the 2 schedules, found 2')
    call scheduler%create(optimizer, all, "lr", "0")
    do step = 0, 5
      call optimizer%get("lr", lr, "0")
      expected = merge(0.5d0**step/4, 1d0, step < 3)
      call expect(is_near(lr, expected, 1d-12), 'the rate of a schedule')
      call optimizer%step([option("allow_none", .true.)])
      call scheduler%step()
    end do
    call own%create("cosine", [option("stepz", 3)], stat, message)
    call expect_error(LOCKSTEP_ERROR_OPTION, 'step')
    call scheduler%free()
    call all%free()
    call both%free()
    call with_context%free()
    call own%free()
    call constant%free()
    call optimizer%free()
    call parameters%free()
  end subroutine

end module

program training_test
  use check, only: begin, end_tests, run
  use training_tests
  implicit none
  call begin()
  call run('trains_as_by_hand', trains_as_by_hand)
  call run('trains_by_a_loss_of_the_callers', trains_by_a_loss_of_the_callers)
  call run('predicts', predicts)
  call run('trains_for_a_time', trains_for_a_time)
  call run('classifies', classifies)
  call run('runs_the_callers_own_steps', runs_the_callers_own_steps)
  call run('tells_all_ranks_what_one_does_wrong', tells_all_ranks_what_one_does_wrong)
  call run('schedules_follow_the_step', schedules_follow_the_step)
  call end_tests()
end program
