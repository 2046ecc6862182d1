!> A linear model whose gradients have a closed form, and what it is trained on: rank r has r + 1
!> samples, with the last of several ranks having none.
module linear_model
  use, intrinsic :: ieee_arithmetic, only: ieee_is_nan
  use, intrinsic :: iso_fortran_env, only: int64, real64
  use check, only: expect, is_near, own_rank, rank_count
  use lockstep
  implicit none
  public

  integer, parameter :: inputs = 3, outputs = 2

contains

  integer function sample_count(rank)
    integer, intent(in) :: rank
    sample_count = rank + 1
    if (rank_count > 1 .and. rank == rank_count - 1) sample_count = 0
  end function

  subroutine batch_of(rank, x, t)
    integer, intent(in) :: rank
    real(real64), allocatable, intent(out) :: x(:, :), t(:, :)
    integer :: i, s
    allocate (x(inputs, sample_count(rank)), t(outputs, sample_count(rank)))
    do s = 1, size(x, 2)
      x(:, s) = [(sin(real(17*rank + 5*s + i, real64)), i=1, inputs)]
      t(:, s) = [(sin(real(17*rank + 5*s + 100 + i, real64)), i=1, outputs)]
    end do
  end subroutine

  !> The gradient of the mean over the samples of all ranks of the mean over outputs of (W x + b -
  !> t)**2, with the weight as (inputs, outputs).
  subroutine expected_gradient(w, b, gw, gb)
    real(real64), intent(in) :: w(:, :), b(:)
    real(real64), intent(out) :: gw(:, :), gb(:)
    real(real64), allocatable :: x(:, :), t(:, :), d(:, :)
    integer :: rank, total
    gw = 0
    gb = 0
    total = 0
    do rank = 0, rank_count - 1
      total = total + sample_count(rank)
    end do
    do rank = 0, rank_count - 1
      call batch_of(rank, x, t)
      d = 2*(matmul(transpose(w), x) + spread(b, 2, size(x, 2)) - t)/(outputs*total)
      gw = gw + matmul(x, transpose(d))
      gb = gb + sum(d, 2)
    end do
  end subroutine

  subroutine make_model(model)
    type(lockstep_model), intent(inout) :: model
    call model%create()
    call model%add("linear", [option("in", inputs), option("out", outputs), option("dtype", "f64")])
    call model%initialize(5)
  end subroutine

  !> Trains on the communicator, and compares each step.
  subroutine train_as_by_hand(ranks, loss)
    type(lockstep_communicator), intent(in) :: ranks
    type(lockstep_loss), intent(in) :: loss
    type(lockstep_model) :: model
    type(lockstep_replica) :: replica
    type(lockstep_parameters) :: parameters
    type(lockstep_optimizer) :: optimizer
    type(lockstep_step_report) :: report
    real(real64), allocatable :: x(:, :), t(:, :), w_before(:, :), b_before(:)
    real(real64) :: gw(inputs, outputs), gb(outputs), mean_loss
    real(real64), pointer :: w(:, :), b(:), g(:, :)
    character(:), allocatable :: name
    integer :: count, step
    logical :: has

    call make_model(model)
    call replica%create(model, ranks)
    call model%parameters(parameters)
    call parameters%count(count)
    call expect(count == 2, 'two parameters')
    call parameters%name(2, name)
    call expect(name == '0.bias', 'a bias')
    call optimizer%create(parameters, "SGD", [option("lr", 0.5d0)])
    call batch_of(own_rank, x, t)
    do step = 1, 3
      call parameters%value("0.weight", w)
      call parameters%value("0.bias", b)
      call expect(all(shape(w) == [inputs, outputs]), 'a weight of (inputs, outputs)')
      w_before = w
      b_before = b
      call expected_gradient(w, b, gw, gb)

      call optimizer%zero_gradients()
      has = .true.
      call parameters%has_gradient("0.weight", has)
      call expect(.not. has, 'no gradient')
      mean_loss = -1
      ! A rank without samples may also give no arrays at all.
      if (size(x) == 0 .and. step > 1) then
        call replica%backward(loss, mean_loss)
      else
        call replica%backward(x, t, loss, mean_loss)
      end if
      call expect(mean_loss >= 0, 'a loss')
      call parameters%read_gradient("0.weight", g)
      call expect(all(is_near(g, gw, 1d-12)), 'the gradient by hand')
      call optimizer%step(report=report)
      call expect(report%applied .and. .not. report%empty, 'a step')
      call expect(ieee_is_nan(report%gradient_norm), 'that nobody has looked at the norm')
      call expect(all(is_near(w, w_before - 0.5d0*gw, 1d-12)), 'a step of the weight by hand')
      call expect(all(is_near(b, b_before - 0.5d0*gb, 1d-12)), 'a step of the bias by hand')
    end do
    ! Freed in an order that makes no sense.
    call model%free()
    call parameters%free()
    call replica%free()
    call optimizer%free()
  end subroutine

end module
