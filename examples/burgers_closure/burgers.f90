!> The solver: u_t + (u^2/2)_x = viscosity u_xx + force on a periodic interval, by finite volumes,
!> for several members at once: u(cell, member) is the mean of u over a cell.
module burgers
  use, intrinsic :: iso_fortran_env, only: real64
  implicit none
  private
  public :: advance, closure, coarse, coarse_of, describe_members, face_flux, fine, fine_flux_at_coarse_faces, &
    forcing, grid, smagorinsky, time_step

  integer, parameter :: factor = 16
  real(real64), parameter :: pi = acos(-1d0), length = 2*pi, viscosity = 0.01d0
  !> Of the coarse grid. The fine one makes `substeps` of it, as its diffusion demands.
  real(real64), parameter :: time_step = 0.01d0
  integer, parameter :: substeps = 8
  integer, parameter :: waves = 3

  type :: grid
    integer :: cells, substeps
    real(real64) :: h
  end type
  type(grid), parameter :: fine = grid(1024, substeps, length/1024)
  type(grid), parameter :: coarse = grid(1024/factor, 1, length/(1024/factor))

  !> What a coarse grid adds to its flux for the scales that it does not have.
  type, abstract :: closure
  contains
    procedure(flux_of_closure), deferred :: flux
  end type

  abstract interface
    !> tau(i, :) is the flux from cell i to the next.
    subroutine flux_of_closure(self, u, tau)
      import
      class(closure), intent(in) :: self
      real(real64), intent(in) :: u(:, :)
      real(real64), intent(out) :: tau(:, :)
    end subroutine
  end interface

  !> An eddy viscosity of (constant h)^2 |u_x|.
  type, extends(closure) :: smagorinsky
    real(real64) :: constant = 0
  contains
    procedure :: flux => smagorinsky_flux
  end type

  !> The force on each member: long waves that wander.
  type :: forcing
    real(real64), allocatable :: amplitude(:, :), phase(:, :), frequency(:, :)
  contains
    procedure :: at => force_at
  end type

contains

  !> One coarse time step, by the third-order Runge-Kutta method of Shu and Osher (1988). The force
  !> is constant in it, so that it is the same for both grids.
  subroutine advance(on, u, force, model)
    type(grid), intent(in) :: on
    real(real64), intent(inout) :: u(:, :)
    real(real64), intent(in) :: force(:, :)
    class(closure), intent(in), optional :: model
    real(real64), dimension(size(u, 1), size(u, 2)) :: stage, change
    real(real64) :: dt
    integer :: i
    dt = time_step/on%substeps
    do i = 1, on%substeps
      call tendency(on, u, force, change, model)
      stage = u + dt*change
      call tendency(on, stage, force, change, model)
      stage = 0.75d0*u + 0.25d0*(stage + dt*change)
      call tendency(on, stage, force, change, model)
      u = (u + 2*(stage + dt*change))/3
    end do
  end subroutine

  subroutine tendency(on, u, force, change, model)
    type(grid), intent(in) :: on
    real(real64), intent(in) :: u(:, :), force(:, :)
    real(real64), intent(out) :: change(:, :)
    class(closure), intent(in), optional :: model
    real(real64), dimension(size(u, 1), size(u, 2)) :: q, tau
    integer :: n, m
    n = on%cells
    q = face_flux(on, u)
    if (present(model)) then
      call model%flux(u, tau)
      q = q + tau
    end if
    do m = 1, size(u, 2)
      change(1, m) = force(1, m) - (q(1, m) - q(n, m))/on%h
      change(2:, m) = force(2:, m) - (q(2:, m) - q(:n - 1, m))/on%h
    end do
  end subroutine

  !> The flux from cell i to the next, of second order. Its advection neither makes nor takes energy.
  pure function face_flux(on, u) result(q)
    type(grid), intent(in) :: on
    real(real64), intent(in) :: u(:, :)
    real(real64) :: q(size(u, 1), size(u, 2))
    integer :: n, m
    n = on%cells
    do m = 1, size(u, 2)
      q(:n - 1, m) = between(u(:n - 1, m), u(2:, m))
      q(n, m) = between(u(n, m), u(1, m))
    end do
  contains
    elemental real(real64) function between(left, right)
      real(real64), intent(in) :: left, right
      between = (left*left + left*right + right*right)/6 - viscosity*(right - left)/on%h
    end function
  end function

  !> The box filter: means over the fine cells of each coarse one.
  pure function coarse_of(u) result(mean)
    real(real64), intent(in) :: u(:, :)
    real(real64) :: mean(coarse%cells, size(u, 2))
    mean = sum(reshape(u, [factor, coarse%cells, size(u, 2)]), dim=1)/factor
  end function

  !> The fine flux where the coarse grid has faces: what moves the filtered solution, exactly.
  pure function fine_flux_at_coarse_faces(u) result(q)
    real(real64), intent(in) :: u(:, :)
    real(real64) :: q(coarse%cells, size(u, 2)), all(fine%cells, size(u, 2))
    all = face_flux(fine, u)
    q = all(factor::factor, :)
  end function

  subroutine smagorinsky_flux(self, u, tau)
    class(smagorinsky), intent(in) :: self
    real(real64), intent(in) :: u(:, :)
    real(real64), intent(out) :: tau(:, :)
    tau = cshift(u, 1, dim=1) - u
    tau = -self%constant**2*abs(tau)*tau
  end subroutine

  !> The forces on `count` members after the first `first`, and what they begin with. What is drawn
  !> depends on the seed and the number of a member alone, not on the rank that has it.
  subroutine describe_members(seed, first, count, force, u)
    integer, intent(in) :: seed, first, count
    type(forcing), intent(out) :: force
    real(real64), intent(out) :: u(:, :)
    real(real64) :: drawn(5, waves), x(fine%cells), unused(100)
    integer :: m, k, i, seeds
    allocate (force%amplitude(waves, count), force%phase(waves, count), force%frequency(waves, count))
    call random_seed(size=seeds)
    x = [((i - 0.5d0)*fine%h, i=1, fine%cells)]
    do m = 1, count
      call random_seed(put=[seed, first + m, (i, i=3, seeds)])
      call random_number(unused) ! those of neighbouring seeds are alike at first
      call random_number(drawn)
      force%amplitude(:, m) = 0.5d0 + 0.5d0*drawn(1, :)
      force%phase(:, m) = 2*pi*drawn(2, :)
      force%frequency(:, m) = 2*drawn(3, :) - 1
      u(:, m) = 0
      do k = 1, waves
        u(:, m) = u(:, m) + drawn(4, k)*sin(k*x + 2*pi*drawn(5, k))
      end do
    end do
  end subroutine

  !> The mean force in each fine cell.
  function force_at(self, time) result(force)
    class(forcing), intent(in) :: self
    real(real64), intent(in) :: time
    real(real64) :: force(fine%cells, size(self%phase, 2)), x(fine%cells)
    integer :: m, k, i
    x = [((i - 0.5d0)*fine%h, i=1, fine%cells)]
    force = 0
    do m = 1, size(force, 2)
      do k = 1, waves
        force(:, m) = force(:, m) + self%amplitude(k, m)*(sin(k*fine%h/2)/(k*fine%h/2))* &
                      sin(k*x + self%phase(k, m) + self%frequency(k, m)*time)
      end do
    end do
  end function

end module
