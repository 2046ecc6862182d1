#pragma once

#include <xxhash.h>

#include <cstring>
#include <optional>
#include <string>

#include "checkpoint/format.hpp"

namespace lockstep::checkpoint {

/// A file with this text as its header and these bytes as its tensors, where it has any.
inline std::string file_of(const std::string& text, const std::optional<std::string>& data = {}) {
  Preface preface{.magic = {},
                  .version = format_version,
                  .reserved = 0,
                  .header_bytes = text.size(),
                  .header_checksum = XXH3_64bits(text.data(), text.size())};
  std::memcpy(preface.magic, magic, sizeof magic);
  std::string file(reinterpret_cast<const char*>(&preface), sizeof preface);
  file += text;
  if (data) {
    file.resize(align(file.size()));
    file += *data;
  }
  Trailer trailer{.file_bytes = file.size() + sizeof trailer, .magic = {}};
  std::memcpy(trailer.magic, end_magic, sizeof end_magic);
  return file.append(reinterpret_cast<const char*>(&trailer), sizeof trailer);
}

}  // namespace lockstep::checkpoint
