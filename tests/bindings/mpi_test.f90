!> Training on a communicator of the module mpi, which is an integer.
module mpi_tests
  use mpi, only: MPI_COMM_WORLD, MPI_COMM_NULL
  use check, only: expect, expect_error, message, own_rank, rank_count, stat
  use linear_model, only: train_as_by_hand
  use lockstep
  implicit none

contains

  subroutine trains_on_a_communicator_of_an_integer()
    type(lockstep_communicator) :: ranks
    integer :: rank, size
    call ranks%create(MPI_COMM_WORLD, [option("share_memory", .false.)])
    call ranks%rank(rank)
    call ranks%size(size)
    call expect(rank == own_rank .and. size == rank_count, 'the same ranks')
    call train_as_by_hand(ranks, lockstep_loss("mean_squared_error"))
    call ranks%close()
    call ranks%size(size, stat, message)
    call ranks%free()
    call ranks%create(MPI_COMM_NULL, stat=stat, errmsg=message)
    call expect(stat /= LOCKSTEP_OK .and. ranks%is_empty(), 'no communicator')
  end subroutine

end module

program mpi_test
  use check, only: begin, end_tests, run
  use mpi_tests
  implicit none
  call begin()
  call run('trains_on_a_communicator_of_an_integer', trains_on_a_communicator_of_an_integer)
  call end_tests()
end program
