!> A closure that a network learns from the fine solution: what the example has of lockstep.
module learned_closures
  use, intrinsic :: iso_fortran_env, only: int64, real64
  use mpi_f08, only: MPI_Comm
  use burgers, only: closure
  use lockstep
  use options, only: run_options
  implicit none
  private
  public :: learned_closure

  integer, parameter :: reach = 3 ! cells on either side of a face
  integer, parameter :: features = 2*reach
  !> Of what the network is given and what it gives, so that it works on numbers of order 1.
  real(real64), parameter :: difference_scale = 0.3d0, mean_scale = 1d0, flux_scale = 0.1d0
  real(real64), parameter :: pi = acos(-1d0)

  type, extends(closure) :: learned_closure
    type(lockstep_communicator) :: ranks
    type(lockstep_model) :: model
    type(lockstep_parameters) :: parameters
    type(lockstep_replica) :: replica
    type(lockstep_optimizer) :: optimizer
    type(lockstep_reservoir) :: reservoir
    type(lockstep_trainer) :: trainer
    type(run_options) :: options
  contains
    procedure :: create
    procedure :: learn
    procedure :: add_to
    procedure :: flux
    procedure :: close
  end type

contains

  !> Collective over the ranks of the solver.
  subroutine create(self, solver_ranks, options)
    class(learned_closure), intent(inout) :: self
    type(MPI_Comm), intent(in) :: solver_ranks
    type(run_options), intent(in) :: options
    self%options = options
    call self%ranks%create(solver_ranks)
    call self%model%create()
    call add_linear(features, options%width)
    call self%model%add("tanh")
    call add_linear(options%width, options%width)
    call self%model%add("tanh")
    call add_linear(options%width, 1)
    call self%model%initialize(options%seed)
    call self%model%parameters(self%parameters)
    call self%replica%create(self%model, self%ranks)
    call self%optimizer%create(self%parameters, "Adam", [option("lr", options%lr)])
    call self%optimizer%clip([option("global_norm", 1)])
    call self%reservoir%create(self%ranks, options%capacity, [features], [1], &
                               [option("seed", options%seed)], LOCKSTEP_F64, LOCKSTEP_F64)
    call self%trainer%create(self%replica, self%optimizer, lockstep_loss("mean_squared_error"), &
                             reservoir=self%reservoir, samples=options%batch)
  contains
    subroutine add_linear(from, to)
      integer, intent(in) :: from, to
      call self%model%add("linear", [option("in", from), option("out", to), option("dtype", "f64")])
    end subroutine
  end subroutine

  !> Shows the stencils of this rank's members, of which there may be none, with the fluxes that a
  !> closure should give, and trains. Collective. The learning rate follows the `progress` of the
  !> simulation, from 0 to 1, since nobody knows for how many steps of training it has time.
  subroutine learn(self, u, tau, progress, report)
    class(learned_closure), intent(inout) :: self
    real(real64), intent(in) :: u(:, :), tau(:, :), progress
    type(lockstep_train_report), intent(inout) :: report
    real(real64) :: x(features, size(u)), y(1, size(u)), rate
    call stencils(u, x)
    y = reshape(tau/flux_scale, shape(y))
    call self%reservoir%add(x, y)
    rate = self%options%lr*(0.01d0 + 0.99d0*cos(pi/2*progress)**2)
    call self%optimizer%set([option("lr", rate)])
    if (self%options%train_steps >= 0) then
      call self%trainer%train(self%options%train_steps, report)
    else
      call self%trainer%train_for(self%options%budget, report)
    end if
  end subroutine

  subroutine add_to(self, items)
    class(learned_closure), intent(in) :: self
    type(lockstep_items), intent(in) :: items
    call items%add("model", self%model)
    call items%add("optimizer", self%optimizer)
    call items%add("reservoir", self%reservoir)
  end subroutine

  !> All faces of all members at once.
  subroutine flux(self, u, tau)
    class(learned_closure), intent(in) :: self
    real(real64), intent(in) :: u(:, :)
    real(real64), intent(out) :: tau(:, :)
    real(real64) :: x(features, size(u)), y(1, size(u))
    call stencils(u, x)
    call self%model%predict(x, y)
    tau = flux_scale*reshape(y, shape(tau))
  end subroutine

  !> What the network sees of each face: differences of neighbours around it, which are the same in
  !> any frame of reference; and the mean at it, since the error of the coarse flux at a face, which
  !> the closure makes up for as well, is carried with u.
  pure subroutine stencils(u, x)
    real(real64), intent(in) :: u(:, :)
    real(real64), intent(out) :: x(:, :)
    integer :: m, i, j, n, at, left, right
    n = size(u, 1)
    do m = 1, size(u, 2)
      do i = 1, n
        at = n*(m - 1) + i
        do j = 1, features - 1
          left = modulo(i - reach + j - 1, n) + 1
          right = modulo(left, n) + 1
          x(j, at) = (u(right, m) - u(left, m))/difference_scale
        end do
        x(features, at) = (u(i, m) + u(modulo(i, n) + 1, m))/(2*mean_scale)
      end do
    end do
  end subroutine

  !> Collective.
  subroutine close(self)
    class(learned_closure), intent(inout) :: self
    call self%trainer%free()
    call self%reservoir%free()
    call self%optimizer%free()
    call self%replica%free()
    call self%parameters%free()
    call self%model%free()
    call self%ranks%close()
    call self%ranks%free()
  end subroutine

end module
