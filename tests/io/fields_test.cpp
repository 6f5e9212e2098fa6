#include "graft/io/fields.h"

#include <gtest/gtest.h>

namespace graft::io {
namespace {

struct Inner {
  double rate = 0.5;
  template <class Visitor>
  void visit(Visitor&& field) {
    field("rate", rate, "a rate");
  }
};

struct Outer {
  int64_t epochs = 10;
  uint8_t small = 1;
  bool on = false;
  std::string name = "x";
  std::vector<int64_t> sizes{1};
  std::optional<int64_t> limit;
  Inner inner;
  std::vector<Inner> parts;
  template <class Visitor>
  void visit(Visitor&& field) {
    field("epochs", epochs, "passes");
    field("small", small, "a small number");
    field("on", on, "a switch");
    field("name", name, "a name");
    field("sizes", sizes, "sizes");
    field("limit", limit, "a limit");
    field("inner", inner, "a section");
    field("parts", parts, "sections");
  }
};

std::vector<std::string> mistakes_in(const std::string& json) {
  Outer outer;
  std::vector<std::string> mistakes;
  read_value(Json::parse(json), outer, "", mistakes);
  return mistakes;
}

using Sentences = std::vector<std::string>;

TEST(Fields, WhatIsWrittenIsReadAlike) {
  Outer outer;
  outer.limit = 7;
  outer.inner.rate = 2;
  outer.parts.resize(2);
  const auto json = write_value(outer);
  Outer again;
  Sentences mistakes;
  read_value(json, again, "", mistakes);
  EXPECT_TRUE(mistakes.empty());
  EXPECT_EQ(write_value(again), json);
  EXPECT_FALSE(write_value(Outer{}).contains("limit"));
}

TEST(Fields, MissingKeysKeepTheirDefaults) {
  Outer outer;
  Sentences mistakes;
  read_value(Json::parse(R"({"name":"y","inner":{}})"), outer, "", mistakes);
  EXPECT_TRUE(mistakes.empty());
  EXPECT_EQ(outer.epochs, 10);
  EXPECT_EQ(outer.name, "y");
}

TEST(Fields, WrongTypesSayWhatIsExpected) {
  EXPECT_EQ(mistakes_in(R"({"epochs":"three","inner":{"rate":true},"sizes":[1,"b"],"on":1,"name":2,"limit":[]})"),
            (Sentences{"epochs: expected a whole number, found \"three\"", "on: expected true or false, found 1",
                       "name: expected a text in quotes, found 2", "sizes[1]: expected a whole number, found \"b\"",
                       "limit: expected a whole number, found []", "inner.rate: expected a number, found true"}));
  EXPECT_EQ(mistakes_in(R"({"inner":3,"sizes":4})"),
            (Sentences{"sizes: expected a list, found 4", "inner: expected a section, found 3"}));
  EXPECT_EQ(mistakes_in("[]"), (Sentences{"the top: expected a section, found []"}));
}

TEST(Fields, NumbersThatDoNotFitAreRefused) {
  EXPECT_EQ(mistakes_in(R"({"small":300})"), (Sentences{"small: expected a whole number from 0 to 255, found 300"}));
  EXPECT_EQ(mistakes_in(R"({"small":-1})"), (Sentences{"small: expected a whole number from 0 to 255, found -1"}));
  EXPECT_EQ(mistakes_in(R"({"epochs":18446744073709551615})"),
            (Sentences{"epochs: expected a whole number from -9223372036854775808 to 9223372036854775807, found "
                       "18446744073709551615"}));
  EXPECT_EQ(mistakes_in(R"({"epochs":1.5})"), (Sentences{"epochs: expected a whole number, found 1.5"}));
}

TEST(Fields, UnknownKeysGetTheNearestKnownOne) {
  EXPECT_EQ(mistakes_in(R"({"epohcs":3})"), (Sentences{"epohcs: there is no such key; did you mean `epochs`?"}));
  EXPECT_EQ(mistakes_in(R"({"inner":{"zzzzzzzz":3}})"),
            (Sentences{"inner.zzzzzzzz: there is no such key; known are rate"}));
  EXPECT_EQ(mistakes_in(R"({"parts":[{"rote":1}]})"),
            (Sentences{"parts[0].rote: there is no such key; did you mean `rate`?"}));
}

}  // namespace
}  // namespace graft::io
