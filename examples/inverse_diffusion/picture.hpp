#pragma once

#include <cstdint>
#include <filesystem>

#include "inversion.hpp"

/// Draws the true conductivity with sources and sensors, the one found, their difference, and the
/// curves of a metrics log, into an SVG file. lockstep::Error where it cannot be written.
void draw_picture(const std::filesystem::path& picture, const std::filesystem::path& metrics,
                  const Inversion& inversion, std::int64_t experiments);
