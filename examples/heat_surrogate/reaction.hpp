#pragma once

/// What a cell is made of, without units: the temperature, which is about 1 in a flame, and how
/// much fuel is left, from 0 to 1.
struct CellState {
  double temperature = 0;
  double fuel = 0;
};

/// Whether anything worth computing happens in a cell: it is hot, and has fuel.
bool burns(const CellState& cell) noexcept;

/// The exact source term: what a cell becomes by itself in a time. Two reactions compete for the
/// fuel, one that smoulders and one that flames. Integrated by Alexander's implicit Runge-Kutta
/// method of two stages (SIAM J. Numer. Anal. 14(6), 1977), with Newton's iteration and steps of
/// its own, of an error that needs hundreds of them.
CellState react(const CellState& cell, double time);
