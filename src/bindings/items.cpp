#include "bindings/items.hpp"

#include <fmt/format.h>

#include "lockstep/bindings/checkpoint.h"
#include "lockstep/core/error.hpp"

namespace lockstep::bindings {

void ItemsObject::check_kind(const std::string& item, std::string_view kind) {
  const auto [known, added] = kinds_.emplace(item, kind);
  if (!added && known->second != kind) {
    throw NameError(
        fmt::format("item '{}' has {} already, and cannot have {}", item, known->second, kind));
  }
}

void ItemsObject::add_object(const std::string& item, std::shared_ptr<Object> object) {
  if (object->state() == nullptr) {
    throw HandleError(fmt::format("item '{}': a {} has no state to save", item, object->kind()));
  }
  if (kinds_.contains(item)) throw NameError(fmt::format("there is an item '{}' already", item));
  check_kind(item, "an object");
  objects_[item] = std::move(object);
}

namespace {

template <class Entry>
void add_named(std::vector<Entry>& entries, Entry entry, const std::string& item) {
  for (const auto& [name, value] : entries) {
    if (name == entry.first) {
      throw NameError(fmt::format("there is a '{}' in item '{}' already", name, item));
    }
  }
  entries.push_back(std::move(entry));
}

}  // namespace

void ItemsObject::add_array(const std::string& item, Array array) {
  NamedTensors({array});  // whose errors come here, and not from a save
  check_kind(item, "arrays");
  add_named(arrays_[item], std::move(array), item);
}

void ItemsObject::add_number(const std::string& item, Number number) {
  check_kind(item, "numbers");
  add_named(numbers_[item], std::move(number), item);
}

ItemList ItemsObject::list() const {
  ItemList made;
  const auto add = [&](const std::string& item, auto owner, Stateful& state) {
    made.owners.push_back(std::move(owner));
    made.items.emplace_back(item, state);
  };
  for (const auto& [item, object] : objects_) add(item, object, *object->state());
  for (const auto& [item, entries] : arrays_) {
    auto tensors = std::make_shared<NamedTensors>(entries);
    add(item, tensors, *tensors);
  }
  for (const auto& [item, entries] : numbers_) {
    auto scalars = std::make_shared<Scalars>(entries);
    add(item, scalars, *scalars);
  }
  return made;
}

}  // namespace lockstep::bindings

using namespace lockstep;
using namespace lockstep::bindings;

lockstep_status lockstep_items_create(lockstep_items* result) {
  return call([&] { create<ItemsObject>(result); });
}

lockstep_status lockstep_items_add(lockstep_items items, const char* name, void* handle) {
  return call([&] {
    get<ItemsObject>(items)->add_object(text_of(name, "name"),
                                        find_handle(handle, "lockstep object"));
  });
}

lockstep_status lockstep_items_add_array(lockstep_items items, const char* item, const char* name,
                                         const lockstep_array* array) {
  return call([&] {
    get<ItemsObject>(items)->add_array(text_of(item, "item"),
                                       {text_of(name, "name"), tensor_of(array, name)});
  });
}

lockstep_status lockstep_items_add_range(lockstep_items items, const char* item, const char* name,
                                         const lockstep_array* whole, int64_t begin,
                                         int64_t count) {
  return call([&] {
    const auto object = get<ItemsObject>(items);
    lockstep_array own = *check_pointer(whole, "whole");
    own.rank = 1;
    own.extents[0] = count;
    object->add_array(text_of(item, "item"),
                      {text_of(name, "name"), TensorPart{shape_of(*whole, "whole"), begin,
                                                         tensor_of(&own, "range of an array")}});
  });
}

lockstep_status lockstep_items_add_integer(lockstep_items items, const char* item, const char* name,
                                           int64_t* number) {
  return call([&] {
    get<ItemsObject>(items)->add_number(text_of(item, "item"),
                                        {text_of(name, "name"), check_pointer(number, "number")});
  });
}

lockstep_status lockstep_items_add_real(lockstep_items items, const char* item, const char* name,
                                        double* number) {
  return call([&] {
    get<ItemsObject>(items)->add_number(text_of(item, "item"),
                                        {text_of(name, "name"), check_pointer(number, "number")});
  });
}
