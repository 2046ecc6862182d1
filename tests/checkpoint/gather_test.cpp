// State that not all ranks have.
#include <mpi.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "data/temporary_folder.hpp"
#include "lockstep/checkpoint/checkpoint.hpp"
#include "lockstep/core/error.hpp"
#include "lockstep/tensor/random.hpp"
#include "lockstep/testing/mpi_test.hpp"
#include "testing/throws.hpp"

LOCKSTEP_TEST_RANKS(1, 2, 3, 4);

namespace lockstep::checkpoint {
namespace gather_test {

using testing::read_bytes;
using testing::TemporaryFolder;
using testing::throws;
using testing::world;

/// Has the state that it is given.
class Holder : public Stateful {
 public:
  explicit Holder(StateDict state) : state(std::move(state)) {}

  StateDict state_dict() const override { return state; }
  void check_restore(const StateDict&) const override {}
  void restore(const StateDict& source) override { state = source; }

  StateDict state;
};

Tensor drawn(const Shape& shape, DType dtype = DType::f32) {
  Tensor tensor = Tensor::empty(shape, dtype);
  fill_uniform(tensor, RandomKey(static_cast<std::uint64_t>(shape.size())), -1, 1);
  return tensor;
}

Tensor numbers_of(const Tensor& whole, std::int64_t begin, std::int64_t end) {
  return whole.window(begin, {end - begin}).clone();
}

TensorPart part(const Tensor& whole, std::int64_t begin, std::int64_t end) {
  return {whole.shape(), begin, numbers_of(whole, begin, end)};
}

// In as many ranges as there are ranks: equal ones, or with `skew` most of it on rank 0 and none on
// others.
TensorPart part_of(const Tensor& whole, int rank, bool skew = false) {
  const auto bound = [&](std::int64_t r) {
    const std::int64_t ranks = world().size(), size = whole.size();
    if (!skew) return size * r / ranks;
    return r == 0 ? std::int64_t{0} : r == 1 && ranks > 1 ? size * 2 / 3 : size;
  };
  return part(whole, bound(rank), bound(rank + 1));
}

class Gathering : public ::testing::Test {
 protected:
  // One folder for all ranks.
  static std::string shared_folder(const TemporaryFolder& own) {
    std::string path = (own / ".").string();
    world().broadcast(path);
    return path;
  }

  // Of the file of this state, without metadata.
  std::string bytes_of(const std::function<StateDict()>& state) const {
    std::string bytes;
    world().agree([&] {
      if (world().rank() != 0) return;
      write_file(path("state"), state());
      bytes = read_bytes(path("state"));
    });
    world().broadcast(bytes);
    return bytes;
  }
  std::string bytes() const {
    return bytes_of([this] { return read_file(path()); });
  }
  std::string path(const std::string& name = "c") const { return folder + "/" + name; }
  // What a program without ranks writes.
  std::string expected(const StateDict& state) const {
    return bytes_of([&state] { return state; });
  }

  TemporaryFolder own_folder;
  std::string folder = shared_folder(own_folder);
};

// 1.2 million numbers are more than a chunk of a load.
const Shape large{1201, 1000};

TEST_F(Gathering, parts_make_the_file_that_the_whole_makes) {
  const Tensor weight = drawn({7, 5}), moment = drawn(large), scale = drawn({3}, DType::f64);
  const StateDict whole{
      {"model", StateDict{{"weight", weight}, {"epoch", 3}, {"name", "m"}}},
      {"optimizer", StateDict{{"state", StateDict{{"moment", moment}}}, {"scale", scale}}}};
  for (const bool skew : {false, true}) {
    Holder model({{"weight", part_of(weight, world().rank(), skew)}, {"epoch", 3}, {"name", "m"}});
    Holder optimizer({{"state", StateDict{{"moment", part_of(moment, world().rank(), skew)}}},
                      {"scale", scale}});
    for (const std::size_t buffer : {std::size_t{1000}, std::size_t{64} << 20}) {
      save(path(), world(), {{"model", model}, {"optimizer", optimizer}}, {.buffer_bytes = buffer});
      EXPECT_TRUE(bytes() == expected(whole));
    }
  }
}

TEST_F(Gathering, each_rank_gets_the_part_that_it_has_room_for) {
  const Tensor moment = drawn(large), weight = drawn({7, 5});
  Holder saved({{"moment", part_of(moment, world().rank())}, {"weight", weight}});
  save(path(), world(), {{"optimizer", saved}});
  const TensorPart own = part_of(moment, world().rank(), true);
  const TensorPart room{own.shape, own.begin, Tensor::zeros(own.numbers.shape())};
  Holder loaded({{"moment", room}, {"weight", part_of(weight, world().size() - 1)}});
  Holder whole(StateDict{});
  load(path(), world(), {{"optimizer", loaded}});
  EXPECT_TRUE(bit_equal(loaded.state.at("moment"), own));
  EXPECT_TRUE(bit_equal(loaded.state.at("weight"), part_of(weight, world().size() - 1)));
  load(path(), world(), {{"optimizer", whole}});
  EXPECT_TRUE(bit_equal(whole.state, {{"moment", moment}, {"weight", weight}}));
}

TEST_F(Gathering, parts_that_several_ranks_have_must_be_equal) {
  const Tensor weight = drawn({8});
  const bool last = world().rank() == world().size() - 1;
  Holder all({{"weight", part(weight, 0, 8)}});
  save(path(), world(), {{"model", all}});
  EXPECT_EQ(bytes(), expected({{"model", StateDict{{"weight", weight}}}}));
  if (world().size() == 1) return;
  TensorPart other = part(weight, 0, 8);
  if (last) other.numbers.data<float>()[5] += 1;
  Holder differs({{"weight", other}});
  EXPECT_TRUE(throws<StateError>(
      [&] {
        save(path(), world(), {{"model", differs}});
      },
      "ranks 0 and " + std::to_string(world().size() - 1), "different numbers of 'model/weight'"));
  Holder overlaps({{"weight", last ? part(weight, 2, 8) : part(weight, 0, 4)}});
  EXPECT_TRUE(throws<StateError>(
      [&] {
        save(path(), world(), {{"model", overlaps}});
      },
      "both have number 2 of 'model/weight'"));
  EXPECT_EQ(bytes(), expected({{"model", StateDict{{"weight", weight}}}}));
}

TEST_F(Gathering, a_number_that_nobody_has_is_named) {
  const Tensor weight = drawn({8});
  const auto refuse = [&](std::int64_t begin, std::int64_t end, const std::string& what) {
    Holder holder({{"weight", part(weight, begin, end)}});
    EXPECT_TRUE(throws<StateError>(
        [&] {
          save(path(), world(), {{"model", holder}});
        },
        what, "'model/weight'", "8 numbers"));
  };
  refuse(0, 7, "no rank has number 7");
  refuse(1, 8, "no rank has number 0");
  refuse(0, 0, "no rank has number 0");
  Holder outside({{"weight", TensorPart{{8}, 5, drawn({4})}}});
  EXPECT_TRUE(throws<StateError>(
      [&] {
        save(path(), world(), {{"model", outside}});
      },
      "'weight'", "8 numbers", "5 to 9"));
}

TEST_F(Gathering, parts_are_of_one_tensor_on_all_ranks) {
  if (world().size() == 1) return;
  const bool last = world().rank() == world().size() - 1;
  Holder shapes({{"weight", part(drawn(last ? Shape{2, 4} : Shape{8}), 0, 8)}});
  EXPECT_TRUE(throws<StateError>(
      [&] {
        save(path(), world(), {{"model", shapes}});
      },
      "drifted apart", "'model/weight'"));
  Holder kinds(last ? StateDict{{"weight", drawn({8})}}
                    : StateDict{{"weight", part(drawn({8}), 0, 8)}});
  EXPECT_TRUE(throws<StateError>(
      [&] {
        save(path(), world(), {{"model", kinds}});
      },
      "drifted apart", "'model/weight'"));
}

TEST_F(Gathering, what_some_ranks_have_is_saved_once) {
  // Expert r is on ranks r and r + 1.
  const int ranks = world().size();
  const auto expert = [](int number) {
    return StateDict{{"weight", drawn({number + 2, 3})}, {"routed", 10 * number}};
  };
  StateDict own, all;
  for (int r = 0; r < ranks; ++r) {
    const std::string name = "expert" + std::to_string(r);
    all[name] = expert(r);
    if (r == world().rank() || (r + 1) % ranks == world().rank()) own[name] = expert(r);
  }
  Holder experts(own), step({{"step", 5}});
  save(path(), world(), {{"experts", experts, ItemScope::distributed}, {"step", step}});
  EXPECT_EQ(bytes(), expected({{"experts", all}, {"step", StateDict{{"step", 5}}}}));
  Holder loaded(StateDict{});
  load(path(), world(), {{"experts", loaded, ItemScope::distributed}}, {.mode = LoadMode::subset});
  EXPECT_TRUE(bit_equal(loaded.state, all));

  if (ranks == 1) return;
  const std::string first = "expert0";
  if (own.contains(first) && world().rank() == 1) own[first].as_dict()["routed"] = 7;
  Holder differs(own);
  EXPECT_TRUE(throws<StateError>(
      [&] {
        save(path(), world(), {{"experts", differs, ItemScope::distributed}});
      },
      "'experts/expert0/routed' of rank 1"));
}

TEST_F(Gathering, what_each_rank_has_is_saved_under_its_number) {
  const auto stream = [](int rank) {
    return StateDict{{"calls", 100 + rank}, {"history", drawn({rank + 1, 2})}};
  };
  Holder own(stream(world().rank())), step({{"step", 5}});
  const std::vector<Item> items{{"stream", own, ItemScope::each_rank}, {"step", step}};
  save(path(), world(), items);
  StateDict all{{"step", StateDict{{"step", 5}}}};
  for (int r = 0; r < world().size(); ++r) {
    all["rank." + std::to_string(r)] = StateDict{{"stream", stream(r)}};
  }
  EXPECT_EQ(bytes(), expected(all));
  own.state = StateDict{};
  load(path(), world(), items);
  EXPECT_TRUE(bit_equal(own.state, stream(world().rank())));
}

TEST_F(Gathering, what_each_rank_has_wants_as_many_ranks) {
  if (world().size() == 1) return;
  Holder own({{"calls", world().rank()}});
  const std::vector<Item> items{{"stream", own, ItemScope::each_rank}};
  MPI_Comm one = MPI_COMM_NULL;
  MPI_Comm_split(MPI_COMM_WORLD, world().rank(), 0, &one);
  const Communicator alone(one);
  MPI_Comm_free(&one);
  if (world().rank() == 0) save(path(), alone, items);
  world().barrier();
  const StateDict before = own.state;
  EXPECT_TRUE(throws<CheckpointError>([&] { load(path(), world(), items); }, "'stream'",
                                      "no state of rank 1"));
  EXPECT_TRUE(bit_equal(own.state, before));
}

TEST_F(Gathering, what_more_ranks_had_each_is_not_left_out_unasked) {
  if (world().size() == 1) return;
  Holder own({{"calls", world().rank()}});
  const std::vector<Item> items{{"stream", own, ItemScope::each_rank}};
  save(path(), world(), items);
  const Communicator alone(MPI_COMM_SELF);
  own.state = StateDict{};
  EXPECT_TRUE(throws<CheckpointError>([&] { load(path(), alone, items); }, "rank.1/stream"));
  EXPECT_TRUE(own.state.empty());
  load(path(), alone, items, {.mode = LoadMode::subset});
  EXPECT_EQ(own.state.at("calls").as_int(), 0);
  world().barrier();  // the folder is rank 0's
}

TEST_F(Gathering, errors_of_writing_are_those_of_all_ranks_and_leave_them_usable) {
  const Tensor weight = drawn({64, 64});
  Holder holder({{"weight", part_of(weight, world().rank())}});
  const std::vector<Item> items{{"model", holder}};
  EXPECT_TRUE(throws<CheckpointError>([&] { save(path("none/c"), world(), items); }, "none/c"));
  EXPECT_TRUE(throws<OptionError>([&] { save(path(), world(), items, {.buffer_bytes = 0}); },
                                  "buffer_bytes"));
  EXPECT_TRUE(throws<NameError>([&] { save(path(), world(), {{"rank.0", holder}}); }, "rank."));
  EXPECT_TRUE(throws<StateError>([&] { write_file(path(), holder.state); }, "'weight'", "part"));
  save(path(), world(), items, {.buffer_bytes = 1});
  EXPECT_EQ(bytes(), expected({{"model", StateDict{{"weight", weight}}}}));
}

/// Takes over the numbers that it wants, and no others.
class Careful : public Holder {
 public:
  Careful(StateDict wanted, StateDict own) : Holder(std::move(own)), wanted_(std::move(wanted)) {}

  void check_restore(const StateDict& source) const override {
    if (!bit_equal(source, wanted_)) throw StateError("these are not the numbers");
  }

 private:
  StateDict wanted_;
};

TEST_F(Gathering, what_an_item_checks_are_the_numbers_of_the_file) {
  const Tensor weight = drawn({500});
  const StateDict saved{{"weight", weight}}, before{{"weight", Tensor::zeros({500})}};
  Holder holder(saved), other(before);
  save(path(), world(), {{"model", holder}, {"other", holder}});
  // What the load may get as memory for them holds others.
  static_cast<void>(Tensor::full({500}, std::nan("")));
  Careful model(saved, before);
  load(path(), world(), {{"model", model}}, {.mode = LoadMode::subset});
  EXPECT_TRUE(bit_equal(model.state, saved));

  const int last = world().size() - 1;
  Careful refuses(world().rank() == last ? before : saved, before);
  EXPECT_TRUE(throws<CheckpointError>(
      [&] {
        load(path(), world(), {{"other", other}, {"model", refuses}});
      },
      "does not fit 'model'", "these are not the numbers", "(rank " + std::to_string(last) + ")"));
  EXPECT_TRUE(bit_equal(other.state, before));
  EXPECT_TRUE(bit_equal(refuses.state, before));
}

TEST_F(Gathering, tensors_that_begin_in_one_place_have_checksums_of_their_own) {
  const Tensor all = drawn({100}), some = all.window(0, {10});
  const StateDict state{{"all", all}, {"few", all.window(0, {3})}, {"some", some}};
  Holder holder(state);
  save(path(), world(), {{"model", holder}});
  EXPECT_EQ(bytes(), expected({{"model", state}}));
}

TEST_F(Gathering, tensors_without_numbers_are_kept) {
  const Tensor none = Tensor::zeros({0, 3}), one = drawn({1});
  Holder holder({{"a", part(none, 0, 0)},
                 {"b", part_of(one, world().rank(), true)},
                 {"c", part(none, 0, 0)},
                 {"d", none}});
  save(path(), world(), {{"model", holder}});
  EXPECT_EQ(bytes(),
            expected({{"model", StateDict{{"a", none}, {"b", one}, {"c", none}, {"d", none}}}}));
  Holder loaded(StateDict{});
  load(path(), world(), {{"model", loaded}});
  EXPECT_TRUE(bit_equal(loaded.state, {{"a", none}, {"b", one}, {"c", none}, {"d", none}}));
}
}  // namespace gather_test
}  // namespace lockstep::checkpoint
