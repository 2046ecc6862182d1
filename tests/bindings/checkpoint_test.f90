!> Checkpoints of a run: objects, the caller's arrays and numbers, ranges of a field that ranks have
!> cut, and a manager.
module checkpoint_tests
  use, intrinsic :: iso_fortran_env, only: int8, int64, real32, real64
  use check
  implicit none

contains

  subroutine remove(path)
    character(*), intent(in) :: path
    call MPI_Barrier(MPI_COMM_WORLD)
    if (own_rank == 0) call execute_command_line('rm -rf '//path)
    call MPI_Barrier(MPI_COMM_WORLD)
  end subroutine

  subroutine make_model(model, parameters, optimizer, scheduler, seed)
    type(lockstep_model), intent(inout) :: model
    type(lockstep_parameters), intent(inout) :: parameters
    type(lockstep_optimizer), intent(inout) :: optimizer
    type(lockstep_scheduler), intent(inout) :: scheduler
    integer, intent(in) :: seed
    type(lockstep_schedule) :: schedule
    call model%create()
    call model%add("linear", [option("in", 3), option("out", 2), option("dtype", "f64")])
    call model%initialize(seed)
    call model%parameters(parameters)
    call optimizer%create(parameters, "Adam", [option("lr", 0.5d0)])
    call schedule%create("step", [option("step_size", 2)])
    call scheduler%create(optimizer, schedule)
    call schedule%free()
  end subroutine

  subroutine make_step(parameters, optimizer, scheduler, step)
    type(lockstep_parameters), intent(in) :: parameters
    type(lockstep_optimizer), intent(in) :: optimizer
    type(lockstep_scheduler), intent(in) :: scheduler
    integer, intent(in) :: step
    real(real64), pointer :: w(:, :), g(:, :), gb(:)
    call parameters%value("0.weight", w)
    call parameters%gradient("0.weight", g)
    g = w*step
    call parameters%gradient("0.bias", gb)
    gb = step
    call optimizer%step()
    call scheduler%step()
  end subroutine

  !> What is saved goes on elsewhere with the same numbers.
  subroutine goes_on_with_what_was_saved()
    character(:), allocatable :: path
    type(lockstep_model) :: models(2)
    type(lockstep_parameters) :: parameters(2)
    type(lockstep_optimizer) :: optimizers(2)
    type(lockstep_scheduler) :: schedulers(2)
    type(lockstep_items) :: items(2)
    real(real64), target :: fields(2, 3, 2), times(2)
    real(real32), target :: small(4, 2)
    integer(int64), target :: ids(5, 2), counters(2)
    integer(int8), target :: bytes(3, 2)
    real(real64), pointer :: w(:, :), u(:, :)
    integer :: i, step
    path = own_path('checkpoint_test')
    fields(:, :, 1) = 1.5d0
    fields(:, :, 2) = -1
    small(:, 1) = [1, 2, 3, 4]
    small(:, 2) = 0
    ids(:, 1) = 2_int64**60
    ids(:, 2) = 0
    bytes(:, 1) = [1_int8, 2_int8, -1_int8]
    bytes(:, 2) = 0
    counters = [7_int64, 0_int64]
    times = [2.5d0, 0d0]
    do i = 1, 2
      call make_model(models(i), parameters(i), optimizers(i), schedulers(i), i)
      call items(i)%create()
      call items(i)%add("model", models(i))
      call items(i)%add("optimizer", optimizers(i))
      call items(i)%add("scheduler", schedulers(i))
      call items(i)%add_array("fields", "u", fields(:, :, i))
      call items(i)%add_array("fields", "small", small(:, i))
      call items(i)%add_array("fields", "ids", ids(:, i))
      call items(i)%add_array("fields", "bytes", bytes(:, i))
      call items(i)%add_number("progress", "steps", counters(i))
      call items(i)%add_number("progress", "time", times(i))
    end do
    do step = 1, 3
      call make_step(parameters(1), optimizers(1), schedulers(1), step)
    end do
    call lockstep_checkpoint_save(path, ranks, items(1))
    call lockstep_checkpoint_load(path, ranks, items(2))
    call expect(all(is_near(fields(:, :, 2), 1.5d0, 0d0)) .and. all(abs(small(:, 2) - small(:, 1)) <= 0), 'the fields')
    call expect(all(ids(:, 2) == 2_int64**60) .and. all(bytes(:, 2) == bytes(:, 1)), 'the integers')
    call expect(counters(2) == 7 .and. is_near(times(2), 2.5d0, 0d0), 'the numbers')
    do i = 1, 2
      call make_step(parameters(i), optimizers(i), schedulers(i), 4)
    end do
    call parameters(1)%value("0.weight", w)
    call parameters(2)%value("0.weight", u)
    call expect(all(is_near(u, w, 0d0)), 'the same numbers after one more step')

    call items(2)%add_number("progress", "more", counters(2))
    call lockstep_checkpoint_load(path, ranks, items(2), stat=stat, errmsg=message)
    call expect_error(LOCKSTEP_ERROR_CHECKPOINT, 'more')
    call lockstep_checkpoint_load(path, ranks, items(2), [option("mode", "partial"), option("prefix", "u")])
    call lockstep_checkpoint_load(path//'.none', ranks, items(1), stat=stat, errmsg=message)
    call expect_error(LOCKSTEP_ERROR_CHECKPOINT, path//'.none')
    call lockstep_checkpoint_load(path, ranks, items(1), [option("mode", "some")], stat, message)
    call expect_error(LOCKSTEP_ERROR_OPTION, "'mode'")
    do i = 1, 2
      call models(i)%free()
      call parameters(i)%free()
      call schedulers(i)%free()
      call optimizers(i)%free()
      call items(i)%free()
    end do
    call remove(path)
  end subroutine

  !> Ranks have cut a field of (4, 6) by its last index, and load it cut into other parts, or as a
  !> whole.
  subroutine cuts_a_field_in_other_ways()
    character(:), allocatable :: path
    type(lockstep_items) :: items
    real(real64), allocatable, target :: own(:, :), flat(:)
    real(real64), target :: whole(4, 6)
    integer, allocatable :: begins(:)
    integer :: i, first, count
    path = own_path('field_test')
    allocate (begins(rank_count + 1))
    begins = [(6*i/rank_count, i=0, rank_count)]
    first = begins(own_rank + 1)
    allocate (own(4, first + 1:begins(own_rank + 2)))
    do i = first + 1, begins(own_rank + 2)
      own(:, i) = [10*i + 1, 10*i + 2, 10*i + 3, 10*i + 4]
    end do
    call items%create()
    call items%add_range("fields", "u", own, [4_int64, 6_int64], 4_int64*first + 1)
    call lockstep_checkpoint_save(path, ranks, items)

    ! The last rank takes all but one number of each of the others.
    count = merge(24 - rank_count + 1, 1, own_rank == rank_count - 1)
    allocate (flat(count))
    flat = 0
    call items%create()
    call items%add_range("fields", "u", flat, [4_int64, 6_int64], own_rank + 1_int64)
    call lockstep_checkpoint_load(path, ranks, items)
    call expect(all(is_near(flat, [(10d0*(1 + (i - 1)/4) + 1 + mod(i - 1, 4), i=own_rank + 1, own_rank + count)], 0d0)), &
                'the numbers of a range')
    call items%create()
    call items%add_array("fields", "u", whole)
    whole = 0
    call lockstep_checkpoint_load(path, ranks, items)
    call expect(all(is_near(whole(:, 6), [61d0, 62d0, 63d0, 64d0], 0d0)), 'the whole field')

    call items%add_range("fields", "v", whole(2, :), [6_int64], 1_int64, stat, message)
    call expect_error(LOCKSTEP_ERROR_SHAPE, 'contiguous')
    call items%add_range("fields", "v", flat, [1_int64, 0_int64], 1_int64, stat, message)
    call expect(stat /= LOCKSTEP_OK, 'a range that is in the field')
    call items%add_array("fields", "v", whole(2, :), stat, message)
    call expect_error(LOCKSTEP_ERROR_SHAPE, 'contiguous')
    call items%add_array("fields", "u", whole, stat, message)
    call expect_error(LOCKSTEP_ERROR_NAME, "'u' in item 'fields' already")
    call items%add("ranks", ranks, stat, message)
    call expect_error(LOCKSTEP_ERROR_HANDLE, 'no state')
    call items%free()
    call remove(path)
  end subroutine

  subroutine manages_a_folder()
    type(lockstep_items) :: items
    type(lockstep_manager) :: manager
    integer(int64), target :: steps
    integer(int64) :: latest
    integer :: step, best
    logical :: saved, stop_requested
    character(:), allocatable :: folder
    folder = own_path('folder_test')
    call remove(folder)
    steps = 0
    call items%create()
    call items%add_number("progress", "steps", steps)
    call manager%create(folder, ranks, items, [option("every_steps", 2), option("keep_last", 1), &
                                               option("keep_best", 1), option("best", "highest"), &
                                               option("background", .true.), option("signal", 10)])
    latest = 0
    call manager%load_latest(latest)
    call expect(latest == -1, 'no checkpoint yet')
    do step = 1, 6
      steps = step
      call manager%step(step, real(-abs(step - 4), real64), saved)
      call expect(saved .eqv. mod(step, 2) == 0, 'every other one')
    end do
    steps = 7
    call manager%save(7_int64)
    call manager%wait()
    call manager%stop_requested(stop_requested)
    call expect(.not. stop_requested, 'no signal')
    steps = 0
    call manager%load_latest(latest)
    call expect(latest == 7 .and. steps == 7, 'the latest')
    call manager%load_best(best)
    call expect(best == 4 .and. steps == 4, 'the best')
    call manager%free()
    call manager%create(folder, ranks, items, [option("every_step", 2)], stat, message)
    call expect_error(LOCKSTEP_ERROR_OPTION, "no option 'every_step'")
    call manager%step(8, stat=stat, errmsg=message)
    call expect_error(LOCKSTEP_ERROR_HANDLE, 'NULL')
    call items%free()
    call remove(folder)
  end subroutine

end module

program checkpoint_test
  use check, only: begin, end_tests, run
  use checkpoint_tests
  implicit none
  call begin()
  call run('goes_on_with_what_was_saved', goes_on_with_what_was_saved)
  call run('cuts_a_field_in_other_ways', cuts_a_field_in_other_ways)
  call run('manages_a_folder', manages_a_folder)
  call end_tests()
end program
