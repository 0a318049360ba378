# frozen_string_literal: true

require 'fluent/plugin/bridge/librdkafka'

module Fluent
  module Plugin
    module Bridge
      # Messages for one topic, in the shape in which librdkafka takes a batch: an array of
      # rd_kafka_message_t over memory that holds payloads and keys.
      #
      # Words are collected in one Ruby array and written at once, because an FFI call an event costs
      # more than everything else an event needs here.
      class Messages
        WORDS = Librdkafka::MESSAGE_WORDS
        BYTES = Librdkafka::MESSAGE_BYTES
        PARTITION = 2
        PAYLOAD = 3
        KEY = 5
        INDEX = 8
        UNASSIGNED = 0xffffffff # -1 in the 32 bits of a partition
        private_constant :PARTITION, :PAYLOAD, :KEY, :INDEX, :UNASSIGNED

        # @param key [String, nil]
        # @param payload [String, nil]
        # @return [Integer] the same for every message with this key and payload
        def self.digest(key, payload)
          [key, payload].hash
        end

        # @param words [Array<Integer>, nil] nine words a message, their addresses in memory that its owner frees after
        #   this; without them, messages come by {#add}
        def initialize(words = nil)
          @words = words || []
          @bytes = words ? nil : String.new(encoding: Encoding::BINARY)
          @memory = nil
          @extras = nil
        end

        # @return [Integer] how many they are
        def size
          @words.size / WORDS
        end

        # @return [Boolean] whether there is none
        def empty?
          @words.empty?
        end

        # @return [Integer] bytes of payloads and keys so far
        def bytes
          @bytes.bytesize
        end

        # @return [Boolean] whether a message has headers or a time of its own; then a batch cannot be
        #   produced by one call
        def extras?
          !@extras.nil?
        end

        # Adds a message.
        #
        # @param payload [String, nil] nil for a tombstone
        # @param key [String, nil]
        # @param index [Integer] what refusals name it by
        # @param partition [Integer, nil] nil to leave it to the partitioner
        # @param timestamp [Integer, nil] milliseconds, nil for now
        # @param headers [Hash{String => String}, nil]
        def add(payload, key, index, partition: nil, timestamp: nil, headers: nil)
          if timestamp || headers
            @extras ||= []
            @extras[size] = [timestamp, headers&.map { |name, value| [place("#{name}\0"), place(value), value ? value.bytesize : 0] }]
          end
          payload_at = place(payload)
          key_at = place(key)
          @words.push(0, 0, partition || UNASSIGNED, payload_at, payload ? payload.bytesize : 0,
                      key_at, key ? key.bytesize : 0, 0, index)
        end

        # @return [FFI::MemoryPointer] an array of rd_kafka_message_t; good until {#free}
        def native
          @native ||= begin
            relocate if @bytes
            FFI::MemoryPointer.new(BYTES, size).put_array_of_uint64(0, @words)
          end
        end

        # Gives the memory back at once. librdkafka has copied what it took.
        def free
          @native&.free
          @memory&.free
        end

        # @param position [Integer] which message
        # @return [Integer] the number that it was added with
        def index(position)
          @words[(position * WORDS) + INDEX]
        end

        # @param position [Integer] which message
        # @return [Integer] its bytes on the wire, roughly
        def bytes_of(position)
          at = position * WORDS
          @words[at + PAYLOAD + 1] + @words[at + KEY + 1]
        end

        # @param position [Integer] which message
        # @return [Integer] as {Messages.digest}
        def digest(position)
          native
          at = position * WORDS
          self.class.digest(read(at + KEY), read(at + PAYLOAD))
        end

        # @param position [Integer] which message
        # @param topic [Integer] the address of its rd_kafka_topic_t
        # @return [Array<Integer>] the arguments of rd_kafka_produceva, nine words each; good until {#free}
        def arguments(position, topic)
          native
          at = position * WORDS
          timestamp, headers = @extras[position]
          words = [
            Librdkafka::VTYPE_RKT, topic, 0, 0, 0, 0, 0, 0, 0,
            Librdkafka::VTYPE_MSGFLAGS, Librdkafka::MSG_F_COPY, 0, 0, 0, 0, 0, 0, 0,
            Librdkafka::VTYPE_PARTITION, @words[at + PARTITION], 0, 0, 0, 0, 0, 0, 0,
            Librdkafka::VTYPE_VALUE, @words[at + PAYLOAD], @words[at + PAYLOAD + 1], 0, 0, 0, 0, 0, 0,
            Librdkafka::VTYPE_KEY, @words[at + KEY], @words[at + KEY + 1], 0, 0, 0, 0, 0, 0,
            Librdkafka::VTYPE_OPAQUE, @words[at + INDEX], 0, 0, 0, 0, 0, 0, 0,
            Librdkafka::VTYPE_TIMESTAMP, timestamp || 0, 0, 0, 0, 0, 0, 0, 0
          ]
          headers&.each { |name, value, size| words.push(Librdkafka::VTYPE_HEADER, address(name), address(value), size, 0, 0, 0, 0, 0) }
          words
        end

        # @param positions [Array<Integer>] which to leave out
        # @return [Messages] the others, in the memory of this: free it last
        def without(positions)
          native
          kept = (0...size).to_a - positions
          rest = self.class.new(kept.flat_map { |position| @words[position * WORDS, WORDS] })
          rest.share(@memory, kept.map { |position| @extras[position] }) if @extras
          rest
        end

        protected

        def share(memory, extras)
          @memory = memory
          @extras = extras
        end

        private

        # Places are counted from 1, because an address of 0 stands for nothing.
        def place(text)
          return 0 unless text

          at = @bytes.bytesize + 1
          @bytes << text.b
          at
        end

        def relocate
          # A byte more, so that the address of an empty last text is in it.
          @memory = FFI::MemoryPointer.new(:char, @bytes.bytesize + 1).put_bytes(0, @bytes)
          @bytes = nil
          (0...@words.size).step(WORDS) do |at|
            @words[at + PAYLOAD] = address(@words[at + PAYLOAD])
            @words[at + KEY] = address(@words[at + KEY])
          end
        end

        def read(at)
          @words[at].zero? ? nil : Librdkafka::MEMORY.get_bytes(@words[at] - 1, @words[at + 1])
        end

        def address(at)
          at.zero? ? 0 : @memory.address - 1 + at
        end
      end
    end
  end
end
