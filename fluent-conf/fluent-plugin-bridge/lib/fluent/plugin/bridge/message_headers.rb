# frozen_string_literal: true

require 'fluent/plugin/bridge/librdkafka'

module Fluent
  module Plugin
    module Bridge
      # The headers of a message that was read.
      module MessageHeaders
        # @param message [Integer] address of a rd_kafka_message_t
        # @return [Hash{String => String, nil}] values by name; of several under one name the last
        def self.read(message)
          pointer = FFI::MemoryPointer.new(:pointer)
          return {} unless Librdkafka.rd_kafka_message_headers(message, pointer).zero?

          list = pointer.read_pointer
          name, value, size = Array.new(3) { FFI::MemoryPointer.new(:pointer) }
          headers = {}
          index = 0
          while Librdkafka.rd_kafka_header_get_all(list, index, name, value, size).zero?
            data = value.read_pointer
            headers[name.read_pointer.read_string.force_encoding(Encoding::UTF_8)] =
              data.null? ? nil : data.read_bytes(size.read_uint64).force_encoding(Encoding::UTF_8)
            index += 1
          end
          headers
        end
      end
    end
  end
end
