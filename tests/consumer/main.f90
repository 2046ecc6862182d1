!> A program outside the project: some steps on eight samples, and the loss after them.
program consumer
  use mpi
  use lockstep
  implicit none
  type(lockstep_communicator) :: ranks
  type(lockstep_model) :: model
  type(lockstep_parameters) :: parameters
  type(lockstep_replica) :: replica
  type(lockstep_optimizer) :: optimizer
  double precision :: x(2, 8), y(1, 8), loss
  integer :: begin, error, i, rank, size

  call MPI_Init(error)
  call ranks%create(MPI_COMM_WORLD)
  call ranks%rank(rank)
  call ranks%size(size)
  x = reshape([(sin(dble(i)), i=1, 16)], [2, 8])
  y(1, :) = x(1, :) - x(2, :)
  call model%create()
  call model%add("linear", [option("in", 2), option("out", 1), option("dtype", "f64")])
  call model%initialize(3)
  call model%parameters(parameters)
  call replica%create(model, ranks)
  call optimizer%create(parameters, "SGD", [option("lr", 0.1d0)])
  begin = 8*rank/size
  do i = 1, 10
    call optimizer%zero_gradients()
    call replica%backward(x(:, begin + 1:8*(rank + 1)/size), y(:, begin + 1:8*(rank + 1)/size), &
                          lockstep_loss("mean_squared_error"), loss)
    call optimizer%step()
  end do
  call replica%backward(x, y, lockstep_loss("mean_squared_error"), loss)
  if (rank == 0) print '(i0,a,f8.5)', size, ' ranks: loss', loss
  call optimizer%free()
  call replica%free()
  call parameters%free()
  call model%free()
  call ranks%close()
  call ranks%free()
  call MPI_Finalize(error)
end program
