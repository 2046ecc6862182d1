!> The picture of a comparison, as SVG.
module pictures
  use, intrinsic :: ieee_arithmetic, only: ieee_is_finite
  use, intrinsic :: iso_fortran_env, only: real64
  use burgers, only: coarse, time_step
  use comparisons, only: comparison, variant_names, variants
  implicit none
  private
  public :: write_picture

  integer, parameter :: width = 860, height = 640
  character(*), parameter :: exact_style = 'stroke="#b8b8b8" stroke-width="5"'
  character(*), parameter :: styles(variants) = [character(64) :: &
    'stroke="#d98200" stroke-width="1.2"', &
    'stroke="#2f6fb5" stroke-width="1.2"', &
    'stroke="#2f6fb5" stroke-width="1.2" stroke-dasharray="5 3"', &
    'stroke="#c4122f" stroke-width="1.6"']

  !> A frame with axes: what is at its edges, as it is or, where the axis is logarithmic, as its logarithm.
  type :: panel
    integer :: unit = 0, left = 0, top = 0, width = 0, height = 0
    logical :: log_x = .false., log_y = .false.
    real(real64) :: x(2) = 0, y(2) = 0
  contains
    procedure :: open => open_panel
    procedure :: curve
    procedure :: close => close_panel
  end type

contains

  !> `error` is empty where all went well.
  subroutine write_picture(path, shown, error)
    character(*), intent(in) :: path
    type(comparison), intent(in) :: shown
    character(:), allocatable, intent(out) :: error
    character(500) :: message
    integer :: unit, status
    error = ''
    message = ''
    open (newunit=unit, file=path, action='write', status='replace', iostat=status, iomsg=message)
    if (status == 0) then
      write (unit, '(2(a,i0),a)') '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ', width, &
        ' ', height, '" font-family="sans-serif" font-size="12">'
      write (unit, '(a)') '<rect width="100%" height="100%" fill="white"/>'
      call write_legend(unit)
      call write_fields(unit, shown)
      call write_errors(unit, shown)
      call write_spectra(unit, shown)
      write (unit, '(a)') '</svg>'
      close (unit, iostat=status, iomsg=message)
    end if
    if (status /= 0) error = "'"//path//"': "//trim(message)
  end subroutine

  subroutine write_legend(unit)
    integer, intent(in) :: unit
    integer, parameter :: pitch = 170
    integer :: v
    call entry(60, exact_style, 'fine, filtered')
    do v = 1, variants
      call entry(60 + pitch*v, trim(styles(v)), trim(variant_names(v)))
    end do
  contains
    subroutine entry(at, style, text)
      integer, intent(in) :: at
      character(*), intent(in) :: style, text
      write (unit, '(a,i0,3a)') '<path d="M', at, ' 22h26" ', style, '/>'
      call write_text(unit, at + 32, 26, 'start', text)
    end subroutine
  end subroutine

  subroutine write_fields(unit, shown)
    integer, intent(in) :: unit
    type(comparison), intent(in) :: shown
    type(panel) :: at
    real(real64) :: x(coarse%cells), margin
    integer :: i, v
    x = [((i - 0.5d0)*coarse%h, i=1, coarse%cells)]
    margin = 0.4d0*(maxval(shown%exact) - minval(shown%exact))
    at = panel(unit, 60, 66, width - 80, 230, x=[0d0, coarse%cells*coarse%h], &
               y=[minval(shown%exact) - margin, maxval(shown%exact) + margin])
    call at%open('One of the tested members at the end', 'x', 'u')
    call at%curve(x, shown%exact, exact_style)
    do v = 1, variants
      call at%curve(x, shown%fields(:, v), styles(v))
    end do
    call at%close()
  end subroutine

  subroutine write_errors(unit, shown)
    integer, intent(in) :: unit
    type(comparison), intent(in) :: shown
    type(panel) :: at
    real(real64) :: time(size(shown%error, 1))
    integer :: i, v
    time = [(i*time_step, i=1, size(time))]
    at = panel(unit, 60, 376, 345, 210, log_y=.true., x=[0d0, time(size(time))], &
               y=decades(100*pack(shown%error, .true.), 1d-2, 1d3))
    call at%open('Relative error of all members', 'time', 'error, %')
    do v = 1, variants
      call at%curve(time, 100*shown%error(:, v), styles(v))
    end do
    call at%close()
  end subroutine

  subroutine write_spectra(unit, shown)
    integer, intent(in) :: unit
    type(comparison), intent(in) :: shown
    type(panel) :: at
    real(real64) :: k(size(shown%exact_spectrum))
    integer :: i, v
    k = [(real(i, real64), i=1, size(k))]
    at = panel(unit, 495, 376, 345, 210, log_x=.true., log_y=.true., x=log10([k(1), k(size(k))]), &
               y=decades([shown%exact_spectrum, pack(shown%spectra, .true.)], &
                         minval(shown%exact_spectrum)/10, maxval(shown%exact_spectrum)*10))
    call at%open('Energy spectrum of all members and times', 'wave number', 'mean energy')
    call at%curve(k, shown%exact_spectrum, exact_style)
    do v = 1, variants
      call at%curve(k, shown%spectra(:, v), styles(v))
    end do
    call at%close()
  end subroutine

  !> The decades that numbers lie in, as far as they are between bounds.
  pure function decades(numbers, least, most) result(limits)
    real(real64), intent(in) :: numbers(:), least, most
    real(real64) :: limits(2)
    limits = log10([max(least, min(most/10, minval(numbers))), most])
    if (all(numbers <= most)) limits(2) = log10(max(least*10, maxval(numbers)))
    limits = [real(floor(limits(1)), real64), real(ceiling(limits(2)), real64)]
  end function

  !> Draws frame, ticks and texts. What follows, until it is closed, is drawn inside of the frame.
  subroutine open_panel(self, title, x_label, y_label)
    class(panel), intent(in) :: self
    character(*), intent(in) :: title, x_label, y_label
    real(real64), allocatable :: ticks(:)
    integer :: i, at, bottom
    bottom = self%top + self%height
    write (self%unit, '(4(a,i0),a)') '<rect x="', self%left, '" y="', self%top, '" width="', self%width, &
      '" height="', self%height, '" fill="none" stroke="#444"/>'
    call write_text(self%unit, self%left + self%width/2, self%top - 8, 'middle', title)
    call write_text(self%unit, self%left + self%width/2, bottom + 34, 'middle', x_label)
    write (self%unit, '(2(a,i0),3a)') '<text text-anchor="middle" transform="translate(', &
      self%left - 44, ' ', self%top + self%height/2, ') rotate(-90)">', y_label, '</text>'
    call find_ticks(self%x, self%log_x, ticks)
    do i = 1, size(ticks)
      at = self%left + nint((ticks(i) - self%x(1))/(self%x(2) - self%x(1))*self%width)
      write (self%unit, '(2(a,i0),a)') '<path d="M', at, ' ', bottom, 'v5" stroke="#444"/>'
      call write_text(self%unit, at, bottom + 18, 'middle', label(ticks(i), self%log_x))
    end do
    call find_ticks(self%y, self%log_y, ticks)
    do i = 1, size(ticks)
      at = bottom - nint((ticks(i) - self%y(1))/(self%y(2) - self%y(1))*self%height)
      write (self%unit, '(2(a,i0),a)') '<path d="M', self%left, ' ', at, 'h-5" stroke="#444"/>'
      call write_text(self%unit, self%left - 8, at + 4, 'end', label(ticks(i), self%log_y))
    end do
    write (self%unit, '(4(a,i0),a)') '<svg x="', self%left, '" y="', self%top, '" width="', self%width, &
      '" height="', self%height, '" fill="none" stroke-linejoin="round">'
  end subroutine

  !> A line through points; what is no number, as that of a run that has become unstable, has none.
  subroutine curve(self, x, y, style)
    class(panel), intent(in) :: self
    real(real64), intent(in) :: x(:), y(:)
    character(*), intent(in) :: style
    real(real64) :: at(2)
    logical :: begins
    integer :: i
    begins = .true.
    write (self%unit, '(3a)') '<path ', trim(style), ' d="'
    do i = 1, size(x)
      at = [x(i), y(i)]
      if (self%log_x) at(1) = log10(x(i))
      if (self%log_y) at(2) = log10(y(i))
      at = [(at(1) - self%x(1))/(self%x(2) - self%x(1))*self%width, &
            (self%y(2) - at(2))/(self%y(2) - self%y(1))*self%height]
      if (.not. all(ieee_is_finite(at))) then
        begins = .true.
        cycle
      end if
      at = max(-1d4, min(1d4, at))
      write (self%unit, '(a,f0.1,1x,f0.1)') merge('M', 'L', begins), at
      begins = .false.
    end do
    write (self%unit, '(a)') '"/>'
  end subroutine

  subroutine close_panel(self)
    class(panel), intent(in) :: self
    write (self%unit, '(a)') '</svg>'
  end subroutine

  !> Round numbers between limits; of logarithms those of powers of ten, or where these are few, of 1, 2
  !> and 5 times these.
  pure subroutine find_ticks(limits, logarithmic, ticks)
    real(real64), intent(in) :: limits(2)
    logical, intent(in) :: logarithmic
    real(real64), allocatable, intent(out) :: ticks(:)
    real(real64) :: step
    integer :: i
    if (.not. logarithmic) then
      step = 10d0**floor(log10((limits(2) - limits(1))/4))
      if ((limits(2) - limits(1))/step > 20) step = 5*step
      if ((limits(2) - limits(1))/step > 8) step = 2*step
      ticks = [(i*step, i=floor(limits(1)/step), ceiling(limits(2)/step))]
    else if (limits(2) - limits(1) < 2) then
      ticks = [(i + log10([1d0, 2d0, 5d0]), i=floor(limits(1)), ceiling(limits(2)))]
    else
      ticks = [(real(i, real64), i=floor(limits(1)), ceiling(limits(2)))]
    end if
    ticks = pack(ticks, ticks >= limits(1) - 1d-9 .and. ticks <= limits(2) + 1d-9)
  end subroutine

  pure function label(tick, logarithmic) result(text)
    real(real64), intent(in) :: tick
    logical, intent(in) :: logarithmic
    character(:), allocatable :: text
    character(80) :: written
    real(real64) :: number
    integer :: i
    number = tick
    if (logarithmic) number = 10d0**tick
    if (abs(number) < 2d4 .and. abs(number - nint(number)) < 1d-6) then
      write (written, '(i0)') nint(number)
    else if (abs(number) > 9d-3 .and. abs(number) < 2d4) then
      write (written, '(f12.2)') number
      written = adjustl(written)
      i = len_trim(written)
      if (written(i:i) == '0') written(i:i) = ' '
    else
      write (written, '(a,i0,a)') '10<tspan dy="-5" font-size="9">', nint(log10(number)), '</tspan>'
    end if
    text = trim(written)
  end function

  subroutine write_text(unit, x, y, anchor, text)
    integer, intent(in) :: unit, x, y
    character(*), intent(in) :: anchor, text
    write (unit, '(2(a,i0),5a)') '<text x="', x, '" y="', y, '" text-anchor="', anchor, '">', text, '</text>'
  end subroutine

end module
