!> Errors, texts, notices, and what MPI allows when.
module error_tests
  use, intrinsic :: iso_fortran_env, only: real64
  use check
  implicit none

  type :: notices_t
    integer :: count = 0
    character(200) :: last = ''
  end type

contains

  subroutine tells_errors_by_stat_and_errmsg()
    type(lockstep_model) :: model
    character(:), allocatable :: last
    character(10) :: short
    integer :: status
    status = -1
    short = 'untouched'
    call model%create(status, short)
    call expect(status == LOCKSTEP_OK .and. short == 'untouched', 'that it worked')
    call model%add("linaer", stat=status, errmsg=short)
    last = lockstep_last_error()
    call expect(status /= LOCKSTEP_OK .and. index(last, short) == 1, 'the begin of the message')
    call expect(index(last, 'linaer') > 0, 'all of the message')
    call expect(.not. lockstep_last_error_is_collective(), 'an error of this rank alone')
    call model%add("linear", [option("in", 3), option("in", 4), option("out", 2)], stat, message)
    call expect_error(LOCKSTEP_ERROR_OPTION, "'in'")
    call model%add("linear", [option("in", "three"), option("out", 2)], stat, message)
    call expect_error(LOCKSTEP_ERROR_OPTION, "'in'")
    call model%add("linear", [option("in", 3), option("out", 2), option(repeat("o", 70), 2)], stat, message)
    call expect_error(LOCKSTEP_ERROR_OPTION, 'longer than lockstep takes')
    call model%read("no_such_file.toml", stat, message)
    call expect_error(LOCKSTEP_ERROR_DATA, 'no_such_file.toml')
    call model%free()
    call expect(index(lockstep_version(), '.') > 1, 'a version')
  end subroutine

  subroutine note(level, text, context)
    integer, intent(in) :: level
    character(*), intent(in) :: text
    class(*), intent(inout), optional :: context
    select type (context)
    type is (notices_t)
      context%count = context%count + merge(1, 100, level == LOCKSTEP_LOG_WARNING .or. level == LOCKSTEP_LOG_INFO)
      context%last = text
    end select
  end subroutine

  !> A manager that finds a damaged checkpoint goes on with an older one, and says so.
  subroutine gives_notices_to_a_procedure()
    character(:), allocatable :: folder
    type(lockstep_items) :: items
    type(lockstep_manager) :: manager
    type(notices_t), target :: notices
    real(real64), target :: number
    integer :: step
    number = 1
    folder = own_path('error_test_run')
    if (own_rank == 0) call execute_command_line('rm -rf '//folder)
    call MPI_Barrier(MPI_COMM_WORLD)
    call lockstep_set_log(note, notices)
    call items%create()
    call items%add_number("numbers", "one", number)
    call manager%create(folder, ranks, items)
    call manager%save(1)
    call manager%save(2)
    if (own_rank == 0) then
      call execute_command_line('for f in '//folder//'/*2.lockstep; do echo damaged > "$f"; done')
    end if
    call MPI_Barrier(MPI_COMM_WORLD)
    notices%count = 0
    call manager%load_latest(step)
    call expect(step == 1, 'the sound one')
    call expect(own_rank > 0 .or. (notices%count > 0 .and. len_trim(notices%last) > 0), 'a notice')
    call lockstep_set_log()
    notices%count = 0
    call manager%load_latest(step)
    call expect(notices%count == 0, 'no more notices')
    call manager%free()
    call items%free()
    call MPI_Barrier(MPI_COMM_WORLD)
    if (own_rank == 0) call execute_command_line('rm -rf '//folder)
  end subroutine

  subroutine has_one_watchdog()
    type(lockstep_watchdog) :: watchdog, another
    call watchdog%create(ranks, [option("signals", 3)], stat, message)
    call expect_error(LOCKSTEP_ERROR_OPTION, 'signals')
    call watchdog%create(ranks, [option("signal", 12), option("grace", 2.5d0)])
    call another%create(ranks, stat=stat, errmsg=message)
    call expect_error(LOCKSTEP_ERROR_STATE, 'has a watchdog already')
    call watchdog%free()
    call another%create(ranks)
    call another%free()
  end subroutine

  subroutine takes_objects_of_their_own_kind()
    type(lockstep_communicator) :: communicator
    type(lockstep_environment) :: environment
    type(lockstep_model) :: model
    integer :: size
    call environment%create() ! somebody has initialised MPI already
    call environment%free()
    call model%create()
    communicator%handle = model%handle
    call communicator%size(size, stat, message)
    call expect_error(LOCKSTEP_ERROR_HANDLE, 'found one of a model')
    call model%free()
    call communicator%create(MPI_COMM_SELF)
    call communicator%size(size)
    call expect(size == 1, 'a rank by itself')
    call communicator%close()
    call communicator%free()
  end subroutine

end module

program error_test
  use check, only: begin, end_tests, run
  use error_tests
  implicit none
  call begin()
  call run('tells_errors_by_stat_and_errmsg', tells_errors_by_stat_and_errmsg)
  call run('gives_notices_to_a_procedure', gives_notices_to_a_procedure)
  call run('has_one_watchdog', has_one_watchdog)
  call run('takes_objects_of_their_own_kind', takes_objects_of_their_own_kind)
  call end_tests()
end program
