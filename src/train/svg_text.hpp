#pragma once

#include <string>
#include <string_view>

namespace lockstep::train {

/// Text for the content or a quoted attribute of an XML element: markup is escaped, and what XML
/// does not allow (control characters, bytes that are not UTF-8) becomes U+FFFD.
std::string svg_text(std::string_view text);

/// About how wide a text is in pixels, at a font size in pixels.
double text_width(std::string_view text, double font_size);

/// The beginning of a picture, on a white card with round corners; "</svg>" ends it. Sizes in pixels.
std::string svg_begin(double width, double height, double font_size, std::string_view title);

/// Adds a line of text to a picture: `anchor` ("start", "middle", "end") is its place relative to x,
/// `more` are further attributes, each after a space.
void draw_text(std::string& svg, double x, double y, std::string_view anchor, std::string_view text,
               std::string_view more = "");

}  // namespace lockstep::train
