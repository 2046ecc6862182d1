!> The command line: pairs of a name and a value, and --resume.
module options
  use, intrinsic :: iso_fortran_env, only: error_unit, output_unit, real64
  implicit none
  private
  public :: read_options, run_options

  type :: run_options
    character(:), allocatable :: out
    logical :: resume = .false.
    integer :: members = 7, steps = 1000, stop_after = huge(0)
    integer :: test_members = 8, test_steps = 800
    integer :: train_steps = -1 ! less than 0: by the budget
    real(real64) :: budget = 0.02d0
    integer :: batch = 512, width = 24, capacity = 200000, seed = 1
    real(real64) :: lr = 5d-3, smagorinsky = 0.17d0
  end type

  integer, parameter :: most = 1000000 ! so that numbers of faces and members are default integers

  character(*), parameter :: help(*) = [character(80) :: &
    'Trains a sub-grid closure of a coarse Burgers solver beside a fine one.', &
    '', &
    'Usage: burgers_closure [OPTION [VALUE]]...', &
    '', &
    'Run', &
    '  --out FOLDER        For what it writes [run/burgers_closure]', &
    '  --resume            Go on from the checkpoint in --out', &
    '  --stop-after N      Save and stop after that time step', &
    'Simulation', &
    '  --members N         Of the ensemble that trains, over all ranks [7]', &
    '  --steps N           Coarse time steps in which the closure is trained [1000]', &
    '  --test-members N    Of the ensemble that tests, unseen in training [8]', &
    '  --test-steps N      Coarse time steps of the test [800]', &
    '  --smagorinsky C     The constant of the model to compare with [0.17]', &
    '  --seed N            Of forces, initial values and what is drawn [1]', &
    'Training', &
    '  --budget SECONDS    Of training in each time step [0.02]', &
    '  --train-steps N     Steps of training in each time step instead:', &
    '                      the same bits in each run', &
    '  --batch N           Faces a step, of all ranks [512]', &
    '  --width N           Of the two hidden layers [24]', &
    '  --capacity N        Faces in the reservoir, of all ranks [200000]', &
    '  --lr X              Learning rate at the beginning [0.005]', &
    '  --help              This text']

contains

  !> Reads the command line. `status` is that with which the program ends: 0 after --help, 2 after
  !> something wrong, or -1 where it goes on. `prints`: whether this rank is the one that tells.
  subroutine read_options(prints, read, status)
    logical, intent(in) :: prints
    type(run_options), intent(out) :: read
    integer, intent(out) :: status
    character(:), allocatable :: error, name, value
    integer :: i
    logical :: has_budget
    read%out = 'run/burgers_closure'
    status = -1
    has_budget = .false.
    error = ''
    i = 1
    do while (i <= command_argument_count() .and. error == '')
      name = argument(i)
      i = i + 1
      if (name == '--help') then
        if (prints) write (output_unit, '(a)') (trim(help(i)), i=1, size(help))
        status = 0
        return
      else if (name == '--resume') then
        read%resume = .true.
        cycle
      end if
      value = ''
      if (i <= command_argument_count()) value = argument(i)
      i = i + 1
      has_budget = has_budget .or. name == '--budget'
      select case (name)
      case ('--out'); read%out = value
        if (value == '') error = '--out: expected a folder'
      case ('--stop-after'); call get_integer(1, read%stop_after)
      case ('--members'); call get_integer(1, read%members)
      case ('--steps'); call get_integer(1, read%steps)
      case ('--test-members'); call get_integer(1, read%test_members)
      case ('--test-steps'); call get_integer(0, read%test_steps)
      case ('--smagorinsky'); call get_real(read%smagorinsky)
      case ('--seed'); call get_integer(0, read%seed)
      case ('--budget'); call get_real(read%budget)
      case ('--train-steps'); call get_integer(0, read%train_steps)
      case ('--batch'); call get_integer(1, read%batch)
      case ('--width'); call get_integer(1, read%width)
      case ('--capacity'); call get_integer(1, read%capacity)
      case ('--lr'); call get_real(read%lr)
      case default; error = 'there is no option '//name
      end select
    end do
    if (error == '' .and. has_budget .and. read%train_steps >= 0) error = '--budget excludes --train-steps'
    if (error == '') return
    if (prints) write (error_unit, '(3a)') 'error: ', error, ' (try --help)'
    status = 2

  contains

    subroutine get_integer(least, number)
      integer, intent(in) :: least
      integer, intent(inout) :: number
      character(60) :: range
      integer :: found, failed
      found = least - 1
      failed = verify(value, '-0123456789')
      if (failed == 0) read (value, *, iostat=failed) found
      if (failed == 0 .and. found >= least .and. found <= most) then
        number = found
      else
        write (range, '(i0,a,i0)') least, ' to ', most
        error = name//': expected an integer of '//trim(range)//", found '"//value//"'"
      end if
    end subroutine

    subroutine get_real(number)
      real(real64), intent(inout) :: number
      real(real64) :: found
      character(20) :: limit
      integer :: failed
      found = -1
      failed = verify(value, '-+.0123456789deDE')
      if (failed == 0) read (value, *, iostat=failed) found
      if (failed == 0 .and. found >= 0 .and. found <= most) then
        number = found
      else
        write (limit, '(i0)') most
        error = name//': expected a number of 0 to '//trim(limit)//", found '"//value//"'"
      end if
    end subroutine

  end subroutine

  function argument(number) result(text)
    integer, intent(in) :: number
    character(:), allocatable :: text
    integer :: length
    call get_command_argument(number, length=length)
    allocate (character(length) :: text)
    call get_command_argument(number, text)
  end function

end module
