!> Parameters that live in the caller's arrays, of all ranks and kinds, their reduction, and steps
!> of them in place.
module parameters_tests
  use, intrinsic :: iso_c_binding, only: c_associated, c_f_pointer, c_loc
  use, intrinsic :: iso_fortran_env, only: int64, real32, real64
  use check
  implicit none

contains

  !> The mean over ranks of rank + 1, by which gradients below are scaled.
  real(real64) function mean_factor()
    mean_factor = (rank_count + 1)/2d0
  end function

  subroutine reduces_and_steps_the_callers_own_arrays()
    type(lockstep_parameters) :: parameters
    type(lockstep_reducer) :: reducer
    type(lockstep_optimizer) :: optimizer
    real(real64), target :: a1(3), a3(2, 3, 4), b2(5, 6)
    real(real64), allocatable, target :: a2(:, :)
    real(real64), pointer :: a4(:, :, :, :), g1(:), g2(:, :), g3(:, :, :), g4(:, :, :, :)
    real(real32), target :: s1(4), s2(2, 2), s3(2, 1, 3), s4(1, 2, 1, 2)
    real(real32), pointer :: h1(:), h2(:, :), h3(:, :, :), h4(:, :, :, :)
    character(:), allocatable :: name
    real(real64) :: waited, own
    integer :: i, count, index
    allocate (a2(-1:1, 0:3), a4(2, 1, 2, 3))
    a1 = 1
    a2 = 2
    a3 = 3
    a4 = 4
    b2 = 5
    s1 = 1
    s2 = 2
    s3 = 3
    s4 = 4
    call parameters%create()
    call parameters%borrow("a1", a1)
    call parameters%borrow("a2", a2)
    call parameters%borrow("a3", a3)
    call parameters%borrow("a4", a4)
    call parameters%borrow("columns", b2(:, 2:4)) ! contiguous, and the rest is the caller's
    call parameters%borrow("s1", s1)
    call parameters%borrow("s2", s2)
    call parameters%borrow("s3", s3)
    call parameters%borrow("s4", s4)
    call parameters%value("a2", g2)
    call expect(c_associated(c_loc(g2(1, 1)), c_loc(a2(-1, 0))) .and. all(shape(g2) == [3, 4]), 'the same memory')
    call reducer%create(parameters, ranks)
    call reducer%set_weight(1d0)
    call optimizer%create(parameters, "SGD", [option("lr", 2d0)])

    own = own_rank + 1
    call parameters%gradient("a1", g1)
    g1 = [1, 2, 3]*own
    call reducer%mark_ready("a1")
    call parameters%gradient("a2", g2)
    g2 = own*reshape([(i, i=1, 12)], [3, 4])
    call reducer%mark_ready("a2")
    call parameters%gradient("a3", g3)
    g3 = own
    call parameters%gradient("a4", g4)
    g4 = own
    call parameters%gradient("columns", g2)
    g2 = -own
    call parameters%gradient("s1", h1)
    h1 = real([1, 2, 3, 4]*own, real32)
    call parameters%gradient("s2", h2)
    h2 = real(own, real32)
    call parameters%gradient("s3", h3)
    h3 = real(own, real32)
    call parameters%gradient("s4", h4)
    h4 = real(own, real32)
    call parameters%count(count)
    do index = 3, count
      call parameters%name(index, name)
      call reducer%mark_ready(name)
    end do
    call reducer%finish()
    call parameters%read_gradient("a2", g2)
    call expect(all(is_near(g2, mean_factor()*reshape([(real(i, real64), i=1, 12)], [3, 4]), 1d-14)), &
                'the mean of a2')
    call parameters%read_gradient("a3", g3)
    call parameters%read_gradient("a4", g4)
    call expect(all(is_near(g3, mean_factor(), 1d-14)) .and. all(is_near(g4, mean_factor(), 1d-14)), &
                'the means of a3 and a4')
    call parameters%read_gradient("s1", h1)
    call expect(all(abs(h1 - [1, 2, 3, 4]*mean_factor()) < 1d-6), 'the mean of s1')
    call parameters%read_gradient("s2", h2)
    call parameters%read_gradient("s3", h3)
    call parameters%read_gradient("s4", h4)
    call expect(abs(h2(2, 2) - mean_factor()) < 1d-6 .and. all(shape(h3) == [2, 1, 3]) .and. &
                all(shape(h4) == [1, 2, 1, 2]), 'the means of s2, s3 and s4')

    call optimizer%step()
    call expect(all(is_near(a1, 1 - 2*mean_factor()*[1, 2, 3], 1d-14)), 'a step of a1')
    call expect(is_near(a2(1, 3), 2 - 2*mean_factor()*12, 1d-14), 'a step of a2')
    call expect(all(is_near(a3, 3 - 2*mean_factor(), 1d-14)), 'a step of a3')
    call expect(all(is_near(a4, 4 - 2*mean_factor(), 1d-14)), 'a step of a4')
    call expect(all(is_near(b2(:, 2:4), 5 + 2*mean_factor(), 1d-14)), 'a step of the columns')
    call expect(all(abs(b2(:, 1) - 5) <= 0) .and. all(abs(b2(:, 5:6) - 5) <= 0), 'other columns as they were')
    call expect(all(abs(s1 - (1 - 2*mean_factor()*[1, 2, 3, 4])) < 1d-5), 'a step of s1')
    call expect(all(abs(s4 - (4 - 2*mean_factor())) < 1d-5), 'a step of s4')

    call reducer%waited(waited)
    call expect(waited >= 0, 'seconds')
    call reducer%discard()
    call reducer%free()
    call optimizer%free()
    call parameters%free()
    call expect(is_near(a1(1), 1 - 2*mean_factor(), 1d-14), 'arrays that stay')
    deallocate (a4)
  end subroutine

  subroutine refuses_what_is_not_contiguous()
    type(lockstep_parameters) :: parameters
    real(real64), target :: a(4, 4), cube(2, 3, 4)
    real(real64), pointer :: none(:), row(:)
    integer :: count
    nullify (none)
    a = 1
    cube = 1
    call parameters%create()
    call parameters%borrow("row", a(2, :), stat, message)
    call expect_error(LOCKSTEP_ERROR_SHAPE, "'row': expected contiguous memory")
    call parameters%borrow("block", a(1:2, 1:2), stat, message)
    call expect_error(LOCKSTEP_ERROR_SHAPE, "'block': expected contiguous memory")
    call parameters%borrow("back", a(:, 4:1:-1), stat, message)
    call expect_error(LOCKSTEP_ERROR_SHAPE, 'contiguous')
    call parameters%borrow("slice", cube(:, 2, :), stat, message)
    call expect_error(LOCKSTEP_ERROR_SHAPE, 'contiguous')
    row => a(3, :)
    call parameters%borrow("pointer", row, stat, message)
    call expect_error(LOCKSTEP_ERROR_SHAPE, 'contiguous')
    call parameters%add("copied", a(2, :), stat, message)
    call expect_error(LOCKSTEP_ERROR_SHAPE, 'contiguous')
    call parameters%borrow("none", none, stat, message)
    call expect_error(LOCKSTEP_ERROR_OPTION, "'none'")
    call parameters%count(count)
    call expect(count == 0, 'that nothing is kept')
    call borrow_section(parameters, a(2:3, :))
    call parameters%borrow("column", a(2:3, 1))
    call parameters%borrow("empty", a(:, 1:0))
    call parameters%borrow("expanded", cube(:, :, 2:3))
    call parameters%count(count)
    call expect(count == 3, 'what is contiguous')
    call parameters%free()
  end subroutine

  !> A section stays one in a dummy argument of assumed shape.
  subroutine borrow_section(parameters, section)
    type(lockstep_parameters), intent(in) :: parameters
    real(real64), target, intent(inout) :: section(:, :)
    call parameters%borrow("section", section, stat, message)
    call expect_error(LOCKSTEP_ERROR_SHAPE, 'contiguous')
  end subroutine

  subroutine tells_what_is_wrong()
    type(lockstep_parameters) :: parameters, copy
    type(lockstep_reducer) :: reducer
    type(lockstep_communicator) :: none
    real(real64), target :: a(2, 3)
    real(real64), pointer :: vector(:), matrix(:, :)
    real(real32), pointer :: single(:, :)
    character(:), allocatable :: name
    logical :: has
    integer :: count
    a = 1
    count = -7
    call parameters%count(count, stat, message)
    call expect_error(LOCKSTEP_ERROR_HANDLE, 'NULL')
    call expect(count == -7, 'a result that is untouched')
    call parameters%create()
    call parameters%borrow("a  ", a)
    call parameters%borrow("a", a, stat, message)
    call expect_error(LOCKSTEP_ERROR_NAME, "'a' in this list already")
    call parameters%value("b", matrix, stat, message)
    call expect_error(LOCKSTEP_ERROR_NAME, "no parameter 'b'")
    call parameters%value("a", vector, stat, message)
    call expect_error(LOCKSTEP_ERROR_SHAPE, &
                      'a: expected real(real64) of rank 2, found a pointer to real(real64) of rank 1')
    call parameters%gradient("a", single, stat, message)
    call expect_error(LOCKSTEP_ERROR_DTYPE, &
                      'a: expected real(real64) of rank 2, found a pointer to real(real32) of rank 2')
    call parameters%zero_gradients()
    call parameters%read_gradient("a", matrix, stat, message)
    call expect_error(LOCKSTEP_ERROR_STATE, 'gradient')
    call parameters%has_gradient("a", has)
    call expect(.not. has, 'no gradient')
    call parameters%name(2, name, stat, message)
    call expect_error(LOCKSTEP_ERROR_OPTION, 'one of 1 parameters')
    call parameters%set_requires_gradient("a", .false.)
    call reducer%create(parameters, none, stat=stat, errmsg=message)
    call expect_error(LOCKSTEP_ERROR_HANDLE, 'communicator')
    call reducer%create(parameters, ranks, [option("compression", "zip")], stat, message)
    call expect_error(LOCKSTEP_ERROR_OPTION, "'compression': expected one of none")
    call reducer%create(parameters, ranks, [option("predivide", repeat("x", 600))], stat, message)
    call expect_error(LOCKSTEP_ERROR_OPTION, 'longer than lockstep takes')
    call reducer%create(parameters, ranks, [option("bucket_bytes", 2_int64**53 + 1)], stat, message)
    call expect_error(LOCKSTEP_ERROR_OPTION, 'an integer')
    call reducer%mark_ready("a", stat, message)
    call expect_error(LOCKSTEP_ERROR_HANDLE, 'NULL')

    copy = parameters
    call parameters%free()
    call parameters%free() ! empty by now
    call copy%count(count, stat, message)
    call expect_error(LOCKSTEP_ERROR_HANDLE, 'freed')
    call copy%free(stat, message)
    call expect_error(LOCKSTEP_ERROR_HANDLE, 'freed')
    call expect(copy%is_empty(), 'an empty variable')
    call parameters%create()
    copy = parameters
    call parameters%create()
    call copy%count(count, stat, message)
    call expect_error(LOCKSTEP_ERROR_HANDLE, 'freed')
    call parameters%count(count)
    call parameters%free()
  end subroutine

  subroutine takes_arrays_of_any_rank()
    type(lockstep_parameters) :: parameters
    type(lockstep_optimizer) :: optimizer
    type(lockstep_array) :: array
    real(real64), target :: a(2, 1, 3, 1, 2), s
    real(real64), pointer :: g(:, :, :, :, :)
    a = 1
    s = 2
    call parameters%create()
    call parameters%borrow("a", a)
    call parameters%borrow("s", s)
    call parameters%value("a", array)
    call expect(c_associated(array%address(), c_loc(a)), 'the same memory')
    call parameters%gradient("a", array)
    call expect(all(array%extents() == shape(a)) .and. array%dtype() == LOCKSTEP_F64, 'extents and a dtype')
    call c_f_pointer(array%address(), g, array%extents())
    g = 1
    g(2, 1, 3, 1, 2) = 2
    call optimizer%create(parameters, "SGD", [option("lr", 1d0), option("momentum", 0.5d0)])
    call optimizer%step()
    call expect(is_near(a(1, 1, 1, 1, 1), 0d0, 0d0) .and. is_near(a(2, 1, 3, 1, 2), -1d0, 0d0), 'a step')
    call optimizer%slot("a", "momentum_buffer", array)
    call expect(array%rank() == 5, 'a slot of its rank')
    call parameters%read_gradient("s", array, stat, message)
    call expect_error(LOCKSTEP_ERROR_STATE, 'gradient')
    call parameters%value("s", array)
    call expect(array%rank() == 0 .and. c_associated(array%address(), c_loc(s)), 'a scalar')
    call optimizer%free()
    call parameters%free()
  end subroutine

  subroutine changes_an_own_copy()
    type(lockstep_parameters) :: parameters
    type(lockstep_optimizer) :: optimizer
    real(real64) :: a(2)
    real(real64), pointer :: value(:), gradient(:)
    a = [1, 2]
    call parameters%create()
    call parameters%add("a", a)
    call parameters%add("sum", a + 1)
    call optimizer%create(parameters, "SGD", [option("lr", 1d0), option("params", "a"), option("params", "s*")])
    call parameters%gradient("a", gradient)
    gradient = 1
    call optimizer%step()
    call parameters%value("a", value)
    call expect(all(is_near(value, [0d0, 1d0], 1d-15)) .and. is_near(a(1), 1d0, 1d-15), 'a step of the copy alone')
    call parameters%value("sum", value)
    call expect(all(is_near(value, [2d0, 3d0], 1d-15)), 'the value of an expression')
    call optimizer%free()
    call parameters%free()
  end subroutine

end module

program parameters_test
  use check, only: begin, end_tests, run
  use parameters_tests
  implicit none
  call begin()
  call run('reduces_and_steps_the_callers_own_arrays', reduces_and_steps_the_callers_own_arrays)
  call run('refuses_what_is_not_contiguous', refuses_what_is_not_contiguous)
  call run('tells_what_is_wrong', tells_what_is_wrong)
  call run('takes_arrays_of_any_rank', takes_arrays_of_any_rank)
  call run('changes_an_own_copy', changes_an_own_copy)
  call end_tests()
end program
