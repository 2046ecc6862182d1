#pragma once

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "bindings/call.hpp"
#include "lockstep/checkpoint/checkpoint.hpp"
#include "lockstep/state/named_tensors.hpp"
#include "lockstep/state/scalars.hpp"

namespace lockstep::bindings {

/// Items for a checkpoint, and what keeps their objects.
struct ItemList {
  std::vector<checkpoint::Item> items;
  std::vector<std::shared_ptr<void>> owners;
};

/// Collects what is to be saved: objects, and the caller's arrays and numbers, of which those of
/// one item come together.
class ItemsObject : public ObjectOf<ItemsObject> {
 public:
  static constexpr std::string_view name = "list of items";

  using Array = std::pair<std::string, NamedTensors::Entry>;
  using Number = std::pair<std::string, Scalars::Scalar>;

  /// NameErrors where there is one of that name, or where an item has something of another kind
  /// already.
  void add_object(const std::string& item, std::shared_ptr<Object> object);
  void add_array(const std::string& item, Array array);
  void add_number(const std::string& item, Number number);

  ItemList list() const;

 private:
  void check_kind(const std::string& item, std::string_view kind);

  std::map<std::string, std::string> kinds_;  // of each item
  std::map<std::string, std::shared_ptr<Object>> objects_;
  std::map<std::string, std::vector<Array>> arrays_;
  std::map<std::string, std::vector<Number>> numbers_;
};

}  // namespace lockstep::bindings
