!> Steps within backward and reduction, and optimizers that are combined, beside steps after the backward.
module stepping_tests
  use, intrinsic :: iso_fortran_env, only: real64
  use check
  use linear_model
  use lockstep
  implicit none

  type :: training
    type(lockstep_model) :: model
    type(lockstep_parameters) :: parameters
    type(lockstep_replica) :: replica
    type(lockstep_reducer) :: reducer
  end type

contains

  subroutine start(self, options)
    type(training), intent(inout) :: self
    type(lockstep_option), intent(in), optional :: options(:)
    call make_model(self%model)
    call self%replica%create(self%model, ranks, options)
    call self%replica%reducer(self%reducer)
    call self%model%parameters(self%parameters)
  end subroutine

  subroutine backward(self)
    type(training), intent(in) :: self
    real(real64), allocatable :: x(:, :), t(:, :)
    call batch_of(own_rank, x, t)
    call self%replica%backward(x, t, lockstep_loss("mean_squared_error"))
  end subroutine

  subroutine compare(one, other)
    type(training), intent(in) :: one, other
    real(real64), pointer :: w(:, :), expected_w(:, :), b(:), expected_b(:)
    call one%parameters%value("0.weight", w)
    call other%parameters%value("0.weight", expected_w)
    call one%parameters%value("0.bias", b)
    call other%parameters%value("0.bias", expected_b)
    call expect(maxval(abs(w - expected_w)) <= 0 .and. maxval(abs(b - expected_b)) <= 0, 'the same values')
  end subroutine

  subroutine stop_training(self)
    type(training), intent(inout) :: self
    call self%reducer%free()
    call self%replica%free()
    call self%parameters%free()
    call self%model%free()
  end subroutine

  subroutine check_steps(sharded)
    logical, intent(in) :: sharded
    type(training) :: own, reference
    type(lockstep_optimizer) :: optimizer, expected
    type(lockstep_stepping) :: stepping
    integer :: step
    call start(reference)
    call expected%create(reference%parameters, "Adam", [option("lr", 0.1d0)])
    if (sharded) then
      call start(own, [option("keep_gradients", .false.)])
      call optimizer%create(own%parameters, "Adam", [option("lr", 0.1d0)], ranks)
      call stepping%create(optimizer, own%reducer)
    else
      call start(own)
      call optimizer%create(own%parameters, "Adam", [option("lr", 0.1d0)])
      call stepping%create(optimizer)
    end if
    do step = 1, 3
      call backward(own)
      call expected%zero_gradients()
      call backward(reference)
      call expected%step()
      call compare(own, reference)
    end do
    call stepping%free()
    call stepping%create(expected, reference%reducer, stat=stat, errmsg=message)
    call expect_error(LOCKSTEP_ERROR_OPTION, "sharded")
    call optimizer%free()
    call expected%free()
    call stop_training(own)
    call stop_training(reference)
  end subroutine

  subroutine steps_within_the_backward()
    call check_steps(sharded=.false.)
  end subroutine

  subroutine steps_within_the_reduction()
    call check_steps(sharded=.true.)
  end subroutine

  subroutine combines_optimizers()
    type(training) :: own, reference
    type(lockstep_optimizer) :: both, members(2), expected(2)
    real(real64) :: lr
    integer :: step
    call start(own)
    call start(reference)
    call members(1)%create(own%parameters, "Adam", [option("params", "*.weight"), option("lr", 0.1d0)])
    call members(2)%create(own%parameters, "SGD", [option("params", "*.bias"), option("lr", 0.2d0)])
    call expected(1)%create(reference%parameters, "Adam", [option("params", "*.weight"), option("lr", 0.1d0)])
    call expected(2)%create(reference%parameters, "SGD", [option("params", "*.bias"), option("lr", 0.2d0)])
    call lockstep_combine(both, ["weights", "biases "], members)
    call members(1)%free()
    call members(2)%free()
    do step = 1, 3
      call both%zero_gradients()
      call reference%parameters%zero_gradients()
      call backward(own)
      call backward(reference)
      call both%step()
      call expected(1)%step()
      call expected(2)%step()
      call compare(own, reference)
    end do
    lr = 0
    call both%get("lr", lr, "biases.0")
    call expect(is_near(lr, 0.2d0, 0d0), 'the member''s learning rate')
    call lockstep_combine(both, ["weights"], expected, stat, message)
    call expect_error(LOCKSTEP_ERROR_OPTION, "2 optimizers, found 1")
    call lockstep_combine(both, ["same", "same"], expected, stat, message)
    call expect_error(LOCKSTEP_ERROR_NAME, "same")
    call both%free()
    call expected(1)%free()
    call expected(2)%free()
    call stop_training(own)
    call stop_training(reference)
  end subroutine

end module

program stepping_test
  use check, only: begin, end_tests, run
  use stepping_tests
  implicit none
  call begin()
  call run('steps_within_the_backward', steps_within_the_backward)
  call run('steps_within_the_reduction', steps_within_the_reduction)
  call run('combines_optimizers', combines_optimizers)
  call end_tests()
end program
