!> Tests that are written in Fortran: each is a procedure that run() calls on all ranks, and fails
!> where a check has failed on any of them.
module check
  use, intrinsic :: iso_fortran_env, only: error_unit, real64
  use mpi_f08
  use lockstep
  implicit none
  public

  integer :: own_rank = 0, rank_count = 1
  !> Of all ranks.
  type(lockstep_communicator) :: ranks
  !> For calls that may fail.
  integer :: stat = 0
  character(1000) :: message

  character(:), allocatable, private :: test_name
  integer, private :: failures = 0, passed_tests = 0, failed_tests = 0

contains

  subroutine begin()
    call MPI_Init()
    call MPI_Comm_rank(MPI_COMM_WORLD, own_rank)
    call MPI_Comm_size(MPI_COMM_WORLD, rank_count)
    call ranks%create(MPI_COMM_WORLD)
  end subroutine

  !> A file of this program on so many ranks, beside which others run.
  function own_path(name) result(path)
    character(*), intent(in) :: name
    character(:), allocatable :: path
    character(12) :: count
    write (count, '(i0)') rank_count
    path = name//'-'//trim(count)//'.lockstep'
  end function

  subroutine run(name, test)
    character(*), intent(in) :: name
    interface
      subroutine test()
      end subroutine
    end interface
    test_name = name
    failures = 0
    call test()
    call MPI_Allreduce(MPI_IN_PLACE, failures, 1, MPI_INTEGER, MPI_SUM, MPI_COMM_WORLD)
    if (own_rank == 0) print '(a,1x,a)', merge('ok  ', 'FAIL', failures == 0), name
    passed_tests = passed_tests + merge(1, 0, failures == 0)
    failed_tests = failed_tests + merge(0, 1, failures == 0)
  end subroutine

  subroutine expect(condition, what)
    logical, intent(in) :: condition
    character(*), intent(in) :: what
    if (condition) return
    failures = failures + 1
    write (error_unit, '(a,i0,5a)') '[rank ', own_rank, '] ', test_name, ': expected ', what
  end subroutine

  !> The last call, with `stat` and `message`, has failed by a status, and with a message that
  !> contains a text.
  subroutine expect_error(status, text)
    integer, intent(in) :: status
    character(*), intent(in) :: text
    character(40) :: found
    write (found, '(2(a,i0))') 'status ', status, ', found ', stat
    call expect(stat == status, trim(found)//' for '//text)
    if (stat == LOCKSTEP_OK) return
    call expect(index(message, text) > 0, "'"//text//"' in the message: "//trim(message))
    stat = 0
    message = ''
  end subroutine

  elemental logical function is_near(a, b, tolerance)
    real(real64), intent(in) :: a, b, tolerance
    is_near = abs(a - b) <= tolerance*(1 + abs(b))
  end function

  subroutine end_tests()
    if (own_rank == 0) print '(i0,a,i0,a)', passed_tests, ' passed, ', failed_tests, ' failed, 0 skipped'
    call ranks%close()
    call ranks%free()
    call MPI_Finalize()
    if (failed_tests > 0) stop 1
  end subroutine

end module
