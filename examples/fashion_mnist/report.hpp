#pragma once

#include <filesystem>

/// Draws the loss and the accuracy of a run from its metrics log.
void draw_curves(const std::filesystem::path& metrics, const std::filesystem::path& picture);
