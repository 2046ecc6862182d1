!> The test: coarse solvers, each with another closure, beside the fine one, from initial values and
!> with forces that training has not seen.
module comparisons
  use, intrinsic :: iso_fortran_env, only: real64
  use mpi_f08
  use burgers
  use learned_closures, only: learned_closure
  use options, only: run_options
  implicit none
  private
  public :: compare, comparison, variants, variant_names

  integer, parameter :: variants = 4, none = 1, usual = 2, fitted = 3, network = 4
  character(*), parameter :: variant_names(variants) = &
    [character(32) :: 'no closure', 'Smagorinsky', 'Smagorinsky, fitted', 'learned']
  integer, parameter :: waves = coarse%cells/2

  !> What comes out: the same on all ranks but for the fields, which are of the first member of each.
  type :: comparison
    real(real64), allocatable :: exact(:), fields(:, :) ! (cell), (cell, variant)
    real(real64), allocatable :: error(:, :) ! relative, in L2, over all members: (time step, variant)
    !> Mean energies of wave numbers, over all members and times.
    real(real64) :: exact_spectrum(waves), spectra(waves, variants)
  contains
    procedure :: mean_error
    procedure :: spectrum_error
  end type

contains

  !> Collective. `count` members from `first` on are this rank's.
  subroutine compare(network_closure, fitted_constant, options, ranks, first, count, found)
    class(learned_closure), intent(in) :: network_closure
    real(real64), intent(in) :: fitted_constant
    type(run_options), intent(in) :: options
    type(MPI_Comm), intent(in) :: ranks
    integer, intent(in) :: first, count
    type(comparison), intent(out) :: found
    integer, parameter :: unseen = 1000000 ! numbers of members beyond those of training
    type(forcing) :: forces
    real(real64) :: u(fine%cells, count), force(fine%cells, count), mean(coarse%cells, count)
    real(real64) :: fields(coarse%cells, count, variants), coarse_force(coarse%cells, count)
    real(real64) :: squares(options%test_steps)
    integer :: step, v
    allocate (found%error(options%test_steps, variants))
    call describe_members(options%seed, unseen + first, count, forces, u)
    do v = 1, variants
      fields(:, :, v) = coarse_of(u)
    end do
    found%exact_spectrum = 0
    found%spectra = 0
    do step = 1, options%test_steps
      force = forces%at((step - 0.5d0)*time_step)
      coarse_force = coarse_of(force)
      call advance(fine, u, force)
      call advance(coarse, fields(:, :, none), coarse_force)
      call advance(coarse, fields(:, :, usual), coarse_force, smagorinsky(options%smagorinsky))
      call advance(coarse, fields(:, :, fitted), coarse_force, smagorinsky(fitted_constant))
      call advance(coarse, fields(:, :, network), coarse_force, network_closure)
      mean = coarse_of(u)
      squares(step) = sum(mean**2)
      call add_spectrum(mean, found%exact_spectrum)
      do v = 1, variants
        found%error(step, v) = sum((fields(:, :, v) - mean)**2)
        call add_spectrum(fields(:, :, v), found%spectra(:, v))
      end do
    end do
    associate (e => found%exact_spectrum, s => found%spectra)
      call MPI_Allreduce(MPI_IN_PLACE, squares, size(squares), MPI_REAL8, MPI_SUM, ranks)
      call MPI_Allreduce(MPI_IN_PLACE, found%error, size(found%error), MPI_REAL8, MPI_SUM, ranks)
      call MPI_Allreduce(MPI_IN_PLACE, e, size(e), MPI_REAL8, MPI_SUM, ranks)
      call MPI_Allreduce(MPI_IN_PLACE, s, size(s), MPI_REAL8, MPI_SUM, ranks)
      e = e/(options%test_members*options%test_steps)
      s = s/(options%test_members*options%test_steps)
    end associate
    found%error = sqrt(found%error/spread(squares, 2, variants))
    if (count > 0) then
      found%exact = mean(:, 1)
      found%fields = fields(:, 1, :)
    end if
  end subroutine

  subroutine add_spectrum(u, energy)
    real(real64), intent(in) :: u(:, :)
    real(real64), intent(inout) :: energy(:)
    real(real64), allocatable, save :: basis(:, :, :)
    integer :: i, k, n
    n = size(u, 1)
    if (.not. allocated(basis)) then
      allocate (basis(waves, n, 2))
      do i = 1, n
        basis(:, i, 1) = [(cos(k*i*coarse%h), k=1, waves)]/n
        basis(:, i, 2) = [(sin(k*i*coarse%h), k=1, waves)]/n
      end do
    end if
    energy = energy + sum(matmul(basis(:, :, 1), u)**2 + matmul(basis(:, :, 2), u)**2, dim=2)
  end subroutine

  pure real(real64) function mean_error(self, variant)
    class(comparison), intent(in) :: self
    integer, intent(in) :: variant
    mean_error = sum(self%error(:, variant))/size(self%error, 1)
  end function

  !> The mean distance of the spectra, in decades.
  pure real(real64) function spectrum_error(self, variant)
    class(comparison), intent(in) :: self
    integer, intent(in) :: variant
    spectrum_error = sum(abs(log10(self%spectra(:, variant)/self%exact_spectrum)))/waves
  end function

end module
