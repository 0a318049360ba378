# frozen_string_literal: true

$LOAD_PATH.unshift(File.expand_path('../lib', __dir__), __dir__)

require 'test/unit'
require 'fluent/test'
require 'fluent/test/helpers'
require 'fluent/event'
require 'fluent/time'
