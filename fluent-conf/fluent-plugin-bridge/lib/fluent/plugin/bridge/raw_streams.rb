# frozen_string_literal: true

require 'fluent/event'
require 'fluent/msgpack_factory'
require 'fluent/plugin/bridge/librdkafka'
require 'fluent/plugin/bridge/message_headers'

module Fluent
  module Plugin
    module Bridge
      # Event streams made of messages as they are: the payload is one field, packed by hand, so that no
      # event becomes a hash here.
      class RawStreams
        # Headers of msgpack strings by length, made when first used; longer ones are not kept.
        HEADERS = [] # rubocop:disable Style/MutableConstant -- it fills up
        KEPT = 1 << 16
        ARRAY_OF_TWO = "\x92".b.freeze
        NOTHING = "\xc0".b.freeze
        TIMESTAMP_TYPE = FFI::MemoryPointer.new(:int)
        private_constant :HEADERS, :KEPT, :ARRAY_OF_TWO, :NOTHING, :TIMESTAMP_TYPE

        # @param length [Integer] bytes
        # @return [String] the header of a msgpack string. What follows need not be UTF-8; the specification
        #   allows it.
        def self.string_header(length)
          return (0xa0 | length).chr.b if length < 32
          return [0xd9, length].pack('CC') if length < 1 << 8
          return [0xda, length].pack('Cn') if length < 1 << 16

          [0xdb, length].pack('CN')
        end

        # @param payload_key [String] the field that gets the payload
        # @param fields [Hash{Symbol => String}] fields for :key, :headers, :topic, :partition, :offset and
        #   :timestamp (milliseconds), for those that are wanted
        # @param kafka_time [Boolean] whether an event's time is its message's
        def initialize(payload_key:, fields: {}, kafka_time: false)
          @fields = fields.transform_values { |name| pack(name) }
          @payload_key = [0x80 | (1 + fields.size)].pack('C') + pack(payload_key)
          @kafka_time = kafka_time
          @plain = fields.empty? && !kafka_time
        end

        # @param batch [Batch]
        # @yieldparam topic [String]
        # @yieldreturn [String] the tag
        # @return [Hash{String => Fluent::MessagePackEventStream}] streams by tag
        def build(batch, &)
          buffers = {}
          if @plain
            add_plain(batch, buffers, &)
          else
            add_with_fields(batch, buffers, &)
          end
          buffers.transform_values { |buffer, count| Fluent::MessagePackEventStream.new(buffer, nil, count) }
        end

        private

        # The hot loop: what it does an event is what the input costs.
        def add_plain(batch, buffers)
          memory = Librdkafka::MEMORY
          prefix = ARRAY_OF_TWO + pack(Fluent::EventTime.now) + @payload_key
          headers = HEADERS
          current = buffer = entry = nil
          count = 0
          batch.each do |topic, _partition, _offset, payload, length|
            unless topic.equal?(current)
              entry[1] += count if entry
              current = topic
              entry = buffers[yield(topic)] ||= [String.new(capacity: batch.size * 256), 0]
              buffer = entry[0]
              count = 0
            end
            if payload.zero?
              buffer << prefix << NOTHING
            else
              buffer << prefix << (headers[length] || header(length)) << memory.get_bytes(payload - 1, length)
            end
            count += 1
          end
          entry[1] += count if entry
        end

        def add_with_fields(batch, buffers)
          packer = Fluent::MessagePackFactory.msgpack_packer # making one costs more than packing
          now = pack(Fluent::EventTime.now)
          batch.each do |topic, partition, offset, payload, length, key, key_length, message|
            entry = buffers[yield(topic)] ||= [''.b, 0]
            buffer = entry[0]
            timestamp = milliseconds(message) if @kafka_time || @fields[:timestamp]
            buffer << ARRAY_OF_TWO << (@kafka_time && timestamp ? time_of(timestamp) : now) << @payload_key
            append(buffer, payload, length)
            @fields.each do |field, name|
              buffer << name
              case field
              when :key then append(buffer, key, key_length)
              when :headers then buffer << packer.write(MessageHeaders.read(message)).full_pack
              when :topic then buffer << packer.write(topic).full_pack
              when :partition then buffer << packer.write(partition).full_pack
              when :offset then buffer << packer.write(offset).full_pack
              when :timestamp then buffer << packer.write(timestamp).full_pack
              end
            end
            entry[1] += 1
          end
        end

        def append(buffer, address, length)
          return buffer << NOTHING if address.zero?

          buffer << (HEADERS[length] || header(length)) << (length.zero? ? '' : Librdkafka::MEMORY.get_bytes(address - 1, length))
        end

        def header(length)
          made = self.class.string_header(length).freeze
          HEADERS[length] = made if length < KEPT
          made
        end

        def pack(value)
          Fluent::MessagePackFactory.msgpack_packer.write(value).to_s
        end

        def milliseconds(message)
          time = Librdkafka.rd_kafka_message_timestamp(message, TIMESTAMP_TYPE)
          time.negative? ? nil : time
        end

        # An EventTime as msgpack's ext type 0 (fixext 8): seconds, nanoseconds.
        def time_of(milliseconds)
          [0xd7, 0, milliseconds / 1000, milliseconds % 1000 * 1_000_000].pack('CCNN')
        end
      end
    end
  end
end
