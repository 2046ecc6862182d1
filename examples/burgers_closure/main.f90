!> A coarse Burgers solver learns a closure from a fine one, while that runs: see README.md.
program burgers_closure
  use, intrinsic :: iso_fortran_env, only: error_unit, int64, output_unit, real64
  use mpi_f08
  use burgers
  use comparisons
  use learned_closures
  use lockstep
  use options
  use pictures
  implicit none

  !> What is simulated, and how far it has come. All of it is in checkpoints.
  type :: simulation
    type(forcing) :: forces
    real(real64), allocatable :: u(:, :) ! of the members of this rank
    integer(int64) :: step = 0, training_steps = 0
    real(real64) :: time = 0, loss = 0
    !> Sums, whose ratio is the square of the Smagorinsky constant that fits the fluxes best.
    real(real64) :: squares(2) = 0
  end type

  type(MPI_Comm) :: solver
  type(run_options) :: chosen
  integer :: rank, ranks, status
  call MPI_Init()
  call MPI_Comm_dup(MPI_COMM_WORLD, solver)
  call MPI_Comm_rank(solver, rank)
  call MPI_Comm_size(solver, ranks)
  call read_options(rank == 0, chosen, status)
  if (status < 0) call run(status)
  call MPI_Comm_free(solver)
  call MPI_Finalize()
  if (status > 0) stop status, quiet=.true.

contains

  subroutine run(status)
    integer, intent(out) :: status
    type(simulation), target :: state
    type(learned_closure) :: network
    type(lockstep_items) :: items
    type(lockstep_manager) :: checkpoints
    character(:), allocatable :: error
    integer :: first, count
    call share(chosen%members, first, count)
    allocate (state%u(fine%cells, count))
    call describe_members(chosen%seed, first, count, state%forces, state%u)
    call network%create(solver, chosen)
    call items%create()
    call network%add_to(items)
    call add_simulation(items, state, first)
    call resume(checkpoints, network, items, state, error)
    if (error == '') then
      call train(state, network, checkpoints)
      if (state%step < chosen%steps) then
        if (rank == 0) print '(a,i0,a)', 'stopped after time step ', state%step, ': go on with --resume'
      else if (chosen%test_steps > 0) then
        call test(state, network, error)
      end if
    end if
    if (rank == 0 .and. error /= '') write (error_unit, '(2a)') 'error: ', error
    status = merge(0, 1, error == '')
    call checkpoints%free()
    call items%free()
    call network%close()
  end subroutine

  !> This rank's members, of so many: `count` after the first `first`. Where there are more ranks than
  !> members some have none, but rank 0 always has one.
  subroutine share(members, first, count)
    integer, intent(in) :: members
    integer, intent(out) :: first, count
    first = (members*rank + ranks - 1)/ranks
    count = (members*(rank + 1) + ranks - 1)/ranks - first
  end subroutine

  !> Members lie one after another, so that a rank's are a range of all, and go to other ranks where
  !> these are more or fewer than before.
  subroutine add_simulation(items, state, first)
    type(lockstep_items), intent(in) :: items
    type(simulation), intent(in), target :: state
    integer, intent(in) :: first
    integer(int64) :: extents(2)
    extents = [fine%cells, chosen%members]
    call items%add_range("simulation", "u", state%u, extents, int(fine%cells, int64)*first + 1)
    call items%add_number("progress", "step", state%step)
    call items%add_number("progress", "time", state%time)
    call items%add_number("progress", "training_steps", state%training_steps)
    call items%add_number("progress", "loss", state%loss)
    call items%add_array("smagorinsky", "squares", state%squares)
  end subroutine

  !> Opens the folder of checkpoints, and goes on from the newest. `error` is the same on all ranks.
  subroutine resume(checkpoints, network, items, state, error)
    type(lockstep_manager), intent(inout) :: checkpoints
    type(learned_closure), intent(in) :: network
    type(lockstep_items), intent(in) :: items
    type(simulation), intent(in) :: state
    character(:), allocatable, intent(out) :: error
    integer, parameter :: sigint = 2, sigterm = 15
    character(1000) :: message
    character(:), allocatable :: folder
    logical :: exists
    integer :: stat
    integer(int64) :: step
    folder = chosen%out//'/checkpoints'
    if (rank == 0) inquire (file=folder//'/.', exist=exists)
    call MPI_Bcast(exists, 1, MPI_LOGICAL, 0, solver)
    if (chosen%resume .and. .not. exists) then
      error = "--resume: there is no '"//folder//"'"
      return
    end if
    message = ''
    call checkpoints%create(folder, network%ranks, items, &
                            [option("every_minutes", 5), option("keep_last", 2), &
                             option("signal", sigint), option("signal", sigterm)], stat, message)
    if (stat == LOCKSTEP_OK) call checkpoints%load_latest(step, stat, message)
    error = trim(message)
    if (stat /= LOCKSTEP_OK) return
    if (step >= 0 .and. .not. chosen%resume) then
      error = "'"//folder//"' has checkpoints: pass --resume to go on with them, or another --out"
    else if (step > last_step()) then
      error = folder//': '//text_of(step)//' time steps are done: expected at most '// &
              text_of(last_step())
    end if
    if (rank == 0 .and. error == '') then
      print '(4(i0,a))', chosen%members, ' members of ', fine%cells, ' cells, closure for ', &
        coarse%cells, ' cells, on ', ranks, trim(merge(' rank ', ' ranks', ranks == 1))
      if (step >= 0) print '(a,i0)', 'resumed after time step ', state%step
    end if
  end subroutine

  pure integer(int64) function last_step()
    last_step = min(chosen%steps, chosen%stop_after)
  end function

  function text_of(number) result(text)
    integer(int64), intent(in) :: number
    character(:), allocatable :: text
    character(20) :: written
    write (written, '(i0)') number
    text = trim(written)
  end function

  !> The fine solver goes on, and the closure learns from each coarse time step.
  subroutine train(state, network, checkpoints)
    type(simulation), intent(inout) :: state
    type(learned_closure), intent(inout) :: network
    type(lockstep_manager), intent(in) :: checkpoints
    real(real64), dimension(coarse%cells, size(state%u, 2)) :: u, tau, difference
    real(real64) :: squares(2)
    type(lockstep_train_report) :: report
    integer(int64) :: shown
    logical :: saved, stops
    saved = .true.
    stops = .false.
    shown = max(1, chosen%steps/10)
    do while (state%step < last_step() .and. .not. stops)
      call advance(fine, state%u, state%forces%at(state%time + time_step/2))
      state%step = state%step + 1
      state%time = state%time + time_step

      u = coarse_of(state%u)
      tau = fine_flux_at_coarse_faces(state%u) - face_flux(coarse, u)
      call network%learn(u, tau, real(state%step, real64)/chosen%steps, report)
      state%training_steps = state%training_steps + report%steps
      if (report%steps > 0) state%loss = report%loss

      difference = cshift(u, 1, dim=1) - u
      squares = [-sum(tau*abs(difference)*difference), sum(difference**4)]
      call MPI_Allreduce(MPI_IN_PLACE, squares, 2, MPI_REAL8, MPI_SUM, solver)
      state%squares = state%squares + squares

      if (rank == 0 .and. modulo(state%step, shown) == 0) then
        print '(a,i0,a,i0,a,es8.1)', 'time step ', state%step, ': ', state%training_steps, &
          ' steps of training, loss', state%loss
        flush (output_unit)
      end if
      call checkpoints%step(state%step, saved=saved)
      call checkpoints%stop_requested(stops)
    end do
    if (.not. saved) call checkpoints%save(state%step)
  end subroutine

  !> `error` is empty on all ranks or on none.
  subroutine test(state, network, error)
    type(simulation), intent(in) :: state
    type(learned_closure), intent(in) :: network
    character(:), allocatable, intent(out) :: error
    type(comparison) :: found
    character(:), allocatable :: path
    real(real64) :: fitted
    integer :: first, count, v
    logical :: fails
    call share(chosen%test_members, first, count)
    fitted = sqrt(max(0d0, state%squares(1)/state%squares(2)))
    call compare(network, fitted, chosen, solver, first, count, found)
    error = ''
    path = chosen%out//'/burgers_closure.svg'
    if (rank == 0) then
      print '(/,i0,a,i0,a)', chosen%test_members, ' other members, ', chosen%test_steps, ' time steps'
      print '(t24,a)', '   error    at the end   energies'
      do v = 1, variants
        print '(a,t24,2(f8.2,a),f6.3,a)', trim(variant_names(v)), 100*found%mean_error(v), ' %  ', &
          100*found%error(chosen%test_steps, v), ' %   off by', found%spectrum_error(v), ' decades'
      end do
      call write_picture(path, found, error)
      if (error == '') print '(/,2a)', 'picture     ', path
      if (error == '') print '(2a)', 'checkpoints ', chosen%out//'/checkpoints'
    end if
    fails = error /= ''
    call MPI_Bcast(fails, 1, MPI_LOGICAL, 0, solver)
    if (fails .and. rank > 0) error = 'an error of rank 0'
  end subroutine

end program
