#pragma once

#include <optional>
#include <string>

#include "lockstep/checkpoint/safetensors.hpp"

// The items of a checkpoint in a safetensors file, as docs/checkpoint_format.md has it.
namespace lockstep::checkpoint {

/// Which items go without their names before those of their tensors.
struct ItemRoles {
  std::optional<std::string> model;
  std::optional<std::string> optimizer;  ///< is_optimizer()
};

/// The optimizer is the only item that is one; the model is the item "model", or the only one beside
/// the optimizer.
ItemRoles find_roles(const StateDict& items);

/// What write_safetensors() is to write. NameError where two tensors would have the same name;
/// StateError where the optimizer is none that can be in such a file.
SafetensorsFile pack_items(const StateDict& items, const ItemRoles& roles);

/// The items again, to the bit; of a file that pack_items() has not made, the item "model" and, where
/// it has one as export_safetensors() writes it, the item "optimizer". With `model`, that is the
/// model's name. Takes the tensors, and the metadata that it has used, out of the file. StateError or
/// NameError where the file contradicts itself.
StateDict unpack_items(SafetensorsFile& file, const std::optional<std::string>& model = {});

}  // namespace lockstep::checkpoint
