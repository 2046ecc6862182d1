!> The Fortran interface of lockstep: data-parallel training on MPI. Users say `use lockstep`.
!>
!>   type(lockstep_communicator) :: ranks
!>   type(lockstep_model) :: model
!>   type(lockstep_parameters) :: parameters
!>   type(lockstep_optimizer) :: optimizer
!>   call ranks%create(solver_comm)
!>   call model%create()
!>   call model%add("linear", [option("in", 3), option("out", 2), option("dtype", "f64")])
!>   call model%parameters(parameters)
!>   call optimizer%create(parameters, "Adam", [option("lr", 1d-3)])
!>
!> Objects are variables of derived types, which a create call fills and free() ends, in any order:
!> an object keeps what it needs of others. None ends by itself, and an assignment makes another
!> name of the same object. A variable that has an object already gets the new one, and what it had
!> ends. One that is empty or was freed is LOCKSTEP_ERROR_HANDLE.
!>
!> Errors. Every call takes `stat` and `errmsg`, as allocate does. With `stat`, an integer, that is
!> LOCKSTEP_OK or another status after the call; `errmsg`, a character(*), is the message where it
!> failed. Without `stat` an error is written to error_unit, and ends the program by error stop.
!> After an error nothing has changed unless a call says otherwise, and its results are untouched.
!>
!> Collective calls are made by all ranks of the communicator in the same order, as in MPI; each
!> says so. What goes wrong in one of them on any rank, all ranks are told, with the same message.
!>
!> Options are an array of names and values: [option("lr", 1d-3), option("amsgrad", .true.)]. An
!> option with several values is given several times. Names have up to 64 characters, and texts up
!> to 512.
!>
!> Arrays are of the order of Fortran, with the sample as the last index: (features, samples), which
!> is what the library, the C interface and checkpoints call (samples, features). So all extents are
!> reversed, and nothing is copied. The weight of a linear layer is (in, out) here. An array may
!> have any rank up to 8, and must be contiguous: a section with gaps is LOCKSTEP_ERROR_SHAPE, and
!> is neither copied nor kept. What is kept beyond a call, such as a borrowed parameter, is a target
!> or a pointer of the caller's.
!>
!> Texts lose blanks at their end.
!>
!> Procedures of the caller's get `context`, an optional class(*), as it was given with them: a
!> target, which lives as long as what has the procedure. What keeps a procedure takes one of a
!> module; one inside another procedure lives only as long as that runs. Creating what keeps
!> procedures is for one thread at a time.
!>
!> Threads: an object is for one thread at a time, and collective calls are for threads that may
!> call MPI.
!>
!> MPI: lockstep works on duplicates of the communicators that it is given, and touches no other.
module lockstep
  use lockstep_base, only: lockstep_object, lockstep_last_error, lockstep_last_error_is_collective, &
    lockstep_version, LOCKSTEP_OK, LOCKSTEP_ERROR_OTHER, LOCKSTEP_ERROR_SHAPE, LOCKSTEP_ERROR_DTYPE, &
    LOCKSTEP_ERROR_NAME, LOCKSTEP_ERROR_OPTION, LOCKSTEP_ERROR_STATE, LOCKSTEP_ERROR_DATA, &
    LOCKSTEP_ERROR_CHECKPOINT, LOCKSTEP_ERROR_MPI, LOCKSTEP_ERROR_HANDLE, LOCKSTEP_ERROR_CALLBACK, &
    LOCKSTEP_ERROR_DEADLINE, LOCKSTEP_F32, LOCKSTEP_F64, LOCKSTEP_I64, LOCKSTEP_U8, LOCKSTEP_LOG_INFO, LOCKSTEP_LOG_WARNING
  use lockstep_options, only: lockstep_option, option
  use lockstep_pointers, only: lockstep_array
  use lockstep_callbacks, only: lockstep_log_procedure, lockstep_set_log
  use lockstep_ranks, only: lockstep_environment, lockstep_communicator, lockstep_watchdog
  use lockstep_parameter_values, only: lockstep_parameters
  use lockstep_reducers, only: lockstep_reducer
  use lockstep_models, only: lockstep_model, lockstep_replica, lockstep_loss, lockstep_loss_function
  use lockstep_rules, only: lockstep_rule, lockstep_update, lockstep_update_procedure
  use lockstep_optimizers, only: lockstep_optimizer, lockstep_step_report, lockstep_closure, lockstep_step_hook
  use lockstep_steppings, only: lockstep_stepping, lockstep_combine
  use lockstep_schedules, only: lockstep_schedule, lockstep_schedule_function, lockstep_scheduler
  use lockstep_reservoirs, only: lockstep_reservoir
  use lockstep_training, only: lockstep_trainer, lockstep_train_function, lockstep_train_report
  use lockstep_checkpoints, only: lockstep_items, lockstep_checkpoint_save, lockstep_checkpoint_load
  use lockstep_managers, only: lockstep_manager
  implicit none
  public
end module
